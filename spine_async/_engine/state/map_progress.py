"""What is known of a map's items: which are finished with what, and which were begun.

It outlives one attempt of the map, so that a retry runs only the rest, and starts from the stored rows on a resume.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from spine_async._model.record import VisitRow
from spine_async.errors import CorruptRecordError

if TYPE_CHECKING:
    from spine_async._engine.state.scope import Scope

_INDEX = re.compile(r"\[(\d+)\]")


class IndexSet:
    """A set of indexes that are mostly added in order: everything below a mark, and a few above."""

    def __init__(self) -> None:
        self._mark = 0
        self._above: set[int] = set()

    def add(self, index: int) -> None:
        if index == self._mark:
            self._mark += 1
        else:
            self._above.add(index)
        while self._mark in self._above:
            self._above.remove(self._mark)
            self._mark += 1

    def __contains__(self, index: int) -> bool:
        return index < self._mark or index in self._above

    def __len__(self) -> int:
        return self._mark + len(self._above)


class MapMemory:
    """The items of one visit of a map.

    Attributes:
        finished: Indexes of finished items.
        outputs: JSON text of each finished item's output, by index; stays empty where results are not collected.
        begun: Scopes of items that were begun and not finished, by index.
    """

    def __init__(self, path: str, *, collects: bool, rows: Iterable[VisitRow] = ()) -> None:
        self.path = path
        self.finished = IndexSet()
        self.outputs: dict[int, str] = {}
        self.begun: dict[int, Scope] = {}
        self._collects = collects
        self._stored: dict[int, list[VisitRow]] = {}
        for row in rows:
            self._stored.setdefault(self._index_of(row), []).append(row)

    def item_path(self, index: int) -> str:
        return f"{self.path}[{index}]"

    def finish(self, index: int, output: str) -> None:
        """An item came to its end with this output."""
        self.begun.pop(index, None)
        if self._stored:
            self._stored.pop(index, None)
        self.finished.add(index)
        if self._collects:
            self.outputs[index] = output

    def stored_rows(self, index: int) -> list[VisitRow]:
        """Rows that a former execution stored for the item's own steps."""
        if not self._stored:
            return []
        path = self.item_path(index)
        return [row for row in self._stored.get(index, ()) if row.scope == path]

    def rows_below(self, index: int, visit_path: str) -> list[VisitRow]:
        """Rows that a former execution stored for the items of a map inside of the item."""
        if not self._stored:
            return []
        inside = f"{visit_path}["
        return [row for row in self._stored.get(index, ()) if row.scope.startswith(inside)]

    def _index_of(self, row: VisitRow) -> int:
        match = _INDEX.match(row.scope, len(self.path))
        if match is None:
            raise CorruptRecordError(f"the stored path {row.path!r} does not belong to the map {self.path!r}")
        return int(match.group(1))
