"""The rows of a fork in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from spine_async._model.fork import NewFork, copied_path
from spine_async._model.visit_row import EventRow, VisitRow


def forked_visits(new: NewFork, visits: Iterable[VisitRow]) -> list[VisitRow]:
    """The visits of the new run, from those of the run that is forked."""
    copied = [_copied(new, row) for row in visits if row.seq <= new.until]
    return copied if new.override is None else [*copied, replace(new.override, seq=new.until + 1)]


def forked_events(new: NewFork, events: Iterable[EventRow]) -> list[EventRow]:
    """The events of the new run that have rows of their own, from those of the run that is forked."""
    copied = [replace(row) for row in events if row.seq <= new.until]
    return copied if new.event is None else [*copied, replace(new.event, seq=new.until + 1)]


def _copied(new: NewFork, row: VisitRow) -> VisitRow:
    text = new.outputs.get(row.path)
    if text is None:
        return replace(row, path=copied_path(row.path))
    return replace(row, output=text, output_size=len(text.encode()))
