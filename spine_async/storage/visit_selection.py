"""Selects journal entries by a filter, for stores that keep or read them as objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from spine_async._model.naming import is_inside
from spine_async._model.visit_filter import VisitFilter
from spine_async._model.visit_row import VisitRow


def select_visits(rows: Iterable[VisitRow], chosen: VisitFilter) -> Iterator[VisitRow]:
    """The entries that the filter selects, up to its limit; `rows` are in the order of their numbers."""
    after, path = chosen.after, chosen.inside
    if chosen.scopes is not None:
        scopes = frozenset(chosen.scopes)
        return islice((row for row in rows if row.seq > after and row.scope in scopes), chosen.limit)
    shown = (row for row in rows if row.seq > after and not row.is_hidden)
    return islice(shown if path is None else (row for row in shown if is_inside(row.scope, path)), chosen.limit)
