"""Progress of a map: its finished items, and the stored rows of its unfinished items.

It outlives an attempt of the map, so that a retry runs only the remaining items. On a resume it is built from the
stored rows, one by one in the order of their numbers. The rows of a finished item are dropped at once: only its index,
its digest and, if results are collected, its output remain. So the progress of a long map takes a few bytes per item.

Each stored row is replayed with the definition of the iterator, also the rows of finished items and those of inner maps
of unfinished items. A row that the definition would not have made is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.index_table import DigestTable, IndexSet
from spine_async._engine.state.item_digest import item_digest, stored_digest
from spine_async._model.document import quote
from spine_async._model.record import ONCE_NAME, VisitRow
from spine_async._model.status import StepStatus
from spine_async._model.step import MapStep
from spine_async.errors import CorruptRecordError, WorkflowChangedError


@dataclass(slots=True)
class StoredItem:
    """The stored rows of an unfinished item.

    Attributes:
        cursor: Position after the stored rows.
        rows: The rows of the item's own steps.
        maps: Progress of an unfinished inner map, by the path of its visit.
        has_params: Whether a row stores the item. If so, later rows do not store it again.
        ended_with: Name of the step that ended the item when it was stored, or None.
    """

    cursor: Cursor
    rows: list[VisitRow] = field(default_factory=list)
    maps: dict[str, MapProgress] = field(default_factory=dict)
    has_params: bool = False
    ended_with: str | None = None


class MapProgress:
    """The items of one visit of a map.

    Args:
        run_id: The run.
        path: Path of the map's visit.
        step: The map.
        keeps_digests: Whether digests are kept, so that another attempt of the map can compare its items.

    Attributes:
        finished: Indexes of finished items.
        outputs: JSON text of each finished item's output, by index; empty if results are not collected.
        stored: Items that have stored rows and are not finished, by index, until their scope is created.
    """

    def __init__(self, run_id: str, path: str, step: MapStep, *, keeps_digests: bool) -> None:
        self.path = path
        self.finished = IndexSet()
        self.outputs: dict[int, str] = {}
        self.stored: dict[int, StoredItem] = {}
        self._run_id = run_id
        self._step = step
        self._digests = DigestTable() if keeps_digests else None
        self._params_prefix = f"{{{quote(step.item_param)}:"

    def item_path(self, index: int) -> str:
        """Path of the item's scope."""
        return f"{self.path}[{index}]"

    def item_params(self, text: str) -> str:
        """JSON object text of the params that an item adds; `text` is the JSON text of the item."""
        return f"{self._params_prefix}{text}}}"

    def finish(self, index: int, output: str) -> None:
        """Record that an item finished with this output."""
        self.finished.add(index)
        if self._step.collect:
            self.outputs[index] = output

    def keep_digest(self, index: int, text: str) -> None:
        """Keep the digest of an item that begins."""
        if self._digests is not None:
            self._digests[index] = item_digest(text)

    def drop_digest(self, index: int) -> None:
        """Forget the digest of an item without rows, so that another attempt may have a different item there."""
        if self._digests is not None:
            self._digests[index] = 0

    def is_same_item(self, index: int, text: str) -> bool:
        """Whether the item with this JSON text is the stored one; True if it is not known which item is stored."""
        digest = self._digests[index] if self._digests is not None else 0
        return not digest or digest == item_digest(text)

    def has_item(self, index: int) -> bool:
        """Whether the item is finished or has stored rows."""
        return index in self.finished or index in self.stored

    @property
    def last_index(self) -> int:
        """The largest index of a finished item or of one with stored rows, or -1."""
        return max(self.finished.last, max(self.stored, default=-1))

    def changed(self, index: int, problem: str, step: str | None = None) -> WorkflowChangedError:
        """The error that refuses a resume because of this item."""
        return WorkflowChangedError(
            self._run_id, step or self._step.name, problem, map_path=self.path, item_index=index
        )

    def add(self, row: VisitRow) -> None:
        """Add a stored row; rows are added in the order of their numbers.

        Raises:
            WorkflowChangedError: The definition does not fit the row.
            CorruptRecordError: The row does not belong to the map.
        """
        index, end = self._item_of(row)
        if index in self.finished:
            raise self.changed(index, f"finished step {row.step_name!r} comes after the end of the item", row.step_name)
        item = self.stored.get(index)
        if item is None:
            item = self.stored[index] = StoredItem(Cursor(self._step.workflow))
        if len(row.scope) == end or (row.step_name == ONCE_NAME and "[" not in row.scope[end:]):
            self._add_own(index, item, row)
        else:
            self._inner_map(index, item, row, end).add(row)

    def check_ends(self) -> None:
        """Check that the definition has no further step for a finished item; called after the last row.

        Raises:
            WorkflowChangedError: The definition continues after the step that was an item's last one.
        """
        for index, item in self.stored.items():
            following = item.cursor.step
            if item.ended_with is not None and following is not None:
                problem = f"step {item.ended_with!r} was its last step, but step {following.name!r} follows now"
                raise self.changed(index, problem, item.ended_with)
            for inner in item.maps.values():
                inner.check_ends()

    def _add_own(self, index: int, item: StoredItem, row: VisitRow) -> None:
        if row.item_params is not None:
            if self._digests is not None:
                self._digests[index] = stored_digest(row.item_params)
            # The row of a pending wait adds no params to the checkpoints, so a later row stores the item once more.
            item.has_params = item.has_params or row.status is not StepStatus.WAITING
        if row.status in _NO_VISITS:
            item.rows.append(row)
            return
        try:
            item.cursor.replay(self._run_id, row)
        except WorkflowChangedError as exc:
            raise self.changed(index, f"finished step {row.step_name!r} {exc.problem}", row.step_name) from None
        item.maps.pop(row.path, None)
        item.ended_with = row.step_name if row.ends_item else None
        if item.cursor.step is None:
            del self.stored[index]
            self.finish(index, row.output if row.output is not None else "null")
        else:
            item.rows.append(row)

    def _inner_map(self, index: int, item: StoredItem, row: VisitRow, end: int) -> MapProgress:
        """Progress of the map inside the item that the row belongs to."""
        path = row.scope[: row.scope.index("[", end)]
        inner = item.maps.get(path)
        if inner is None:
            step = item.cursor.step
            if path != f"{self.item_path(index)}/{item.cursor.segment}" or not isinstance(step, MapStep):
                name = path[end + 1 :].partition("#")[0]
                raise self.changed(index, f"items of map {name!r} are stored, {_instead(step)}", name)
            inner = item.maps[path] = MapProgress(self._run_id, path, step, keeps_digests=True)
        return inner

    def _item_of(self, row: VisitRow) -> tuple[int, int]:
        """Index of the row's item, and the position in the row's scope where the path of the item ends."""
        scope, begin = row.scope, len(self.path) + 1
        end = scope.find("]", begin)
        digits = scope[begin:end]
        if end < 0 or not (digits.isascii() and digits.isdigit()) or scope[: begin - 1] != self.path:
            raise CorruptRecordError(f"the stored path {row.path!r} does not belong to the map {self.path!r}")
        return int(digits), end + 1


_NO_VISITS = frozenset({StepStatus.WAITING, StepStatus.OVERRIDE})


def _instead(step: object) -> str:
    name = getattr(step, "name", None)
    return f"but step {name!r} is at this position now" if name is not None else "but the definition ends here now"
