"""Progress of a map: which items are finished, and with which output.

It outlives an attempt of the map, so that a retry runs only the remaining items. On a resume it is built from stored
rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from spine_async._model.record import VisitRow
from spine_async.errors import CorruptRecordError

_INDEX = re.compile(r"\[(\d+)\]")


class IndexSet:
    """A set of indexes that are mostly added in order: all below a limit, and a few above it."""

    def __init__(self) -> None:
        self._limit = 0
        self._above: set[int] = set()

    def add(self, index: int) -> None:
        """Add an index."""
        if index == self._limit:
            self._limit += 1
        else:
            self._above.add(index)
        while self._limit in self._above:
            self._above.remove(self._limit)
            self._limit += 1

    def __contains__(self, index: int) -> bool:
        return index < self._limit or index in self._above

    def __len__(self) -> int:
        return self._limit + len(self._above)


class MapProgress:
    """The items of one visit of a map.

    Args:
        path: Path of the map's visit.
        collects: Whether the outputs of items are kept.
        rows: Rows that an earlier execution stored inside the items.

    Attributes:
        finished: Indexes of finished items.
        outputs: JSON text of each finished item's output, by index; empty if results are not collected.
    """

    def __init__(self, path: str, *, collects: bool, rows: Iterable[VisitRow] = ()) -> None:
        self.path = path
        self.finished = IndexSet()
        self.outputs: dict[int, str] = {}
        self._collects = collects
        self._stored: dict[int, list[VisitRow]] = {}
        for row in rows:
            self._stored.setdefault(self._index_of(row), []).append(row)

    def item_path(self, index: int) -> str:
        """Path of the item's scope."""
        return f"{self.path}[{index}]"

    def finish(self, index: int, output: str) -> None:
        """Record that an item finished with this output."""
        if self._stored:
            self._stored.pop(index, None)
        self.finished.add(index)
        if self._collects:
            self.outputs[index] = output

    def stored_rows(self, index: int) -> list[VisitRow]:
        """Rows that an earlier execution stored for the item's own steps."""
        if not self._stored:
            return []
        path = self.item_path(index)
        return [row for row in self._stored.get(index, ()) if row.scope == path]

    def rows_below(self, index: int, visit_path: str) -> list[VisitRow]:
        """Rows that an earlier execution stored for the items of a map inside the item."""
        if not self._stored:
            return []
        inside = f"{visit_path}["
        return [row for row in self._stored.get(index, ()) if row.scope.startswith(inside)]

    def _index_of(self, row: VisitRow) -> int:
        match = _INDEX.match(row.scope, len(self.path))
        if match is None:
            raise CorruptRecordError(f"the stored path {row.path!r} does not belong to the map {self.path!r}")
        return int(match.group(1))
