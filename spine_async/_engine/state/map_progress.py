"""Progress of a map: its finished items, and the stored rows of its unfinished items.

The rows of a finished item are dropped at once: only its index, its digest and, if results are collected, its output
remain. So the progress of a long map takes a few bytes per item.
"""

from __future__ import annotations

from typing import ClassVar

from spine_async._engine.state.index_table import DigestTable, IndexSet
from spine_async._engine.state.item_digest import stored_digest
from spine_async._engine.state.nested_progress import InnerProgress, NestedProgress
from spine_async._model.document import quote
from spine_async._model.map_step import MapStep
from spine_async._model.step import Definition
from spine_async._model.visit_row import VisitRow
from spine_async.errors import CorruptRecordError, WorkflowChangedError


class MapProgress(NestedProgress[int]):
    """The items of one visit of a map.

    Args:
        run_id: The run.
        path: Path of the map's visit.
        step: The map.
        open_inner: Creates the progress of a step inside.
        keeps_digests: Whether digests are kept, so that another attempt of the map can compare its items.

    Attributes:
        finished: Indexes of finished items.
        outputs: JSON text of each finished item's output, by index; empty if results are not collected.
    """

    noun: ClassVar[str] = "item"

    def __init__(
        self, run_id: str, path: str, step: MapStep, open_inner: InnerProgress, *, keeps_digests: bool
    ) -> None:
        super().__init__(run_id, path, step, open_inner)
        self.finished = IndexSet()
        self.outputs: dict[int, str] = {}
        self._map = step
        self._digests = DigestTable() if keeps_digests else None
        self._params_prefix = f"{{{quote(step.item_param)}:"

    @property
    def has_rows(self) -> bool:
        return self.last_index >= 0

    def scope_path(self, key: int) -> str:
        return f"{self.path}[{key}]"

    def item_params(self, text: str) -> str:
        """JSON object text of the params that an item adds; `text` is the JSON text of the item."""
        return f"{self._params_prefix}{text}}}"

    def is_finished(self, key: int) -> bool:
        return key in self.finished

    def finish(self, key: int, output: str) -> None:
        self.finished.add(key)
        if self._map.collect:
            self.outputs[key] = output

    @property
    def keeps_digests(self) -> bool:
        """Whether digests of items are kept."""
        return self._digests is not None

    def keep_digest(self, index: int, digest: int) -> None:
        """Keep the digest of an item that begins, if digests are kept."""
        if self._digests is not None:
            self._digests[index] = digest

    def drop_digest(self, index: int) -> None:
        """Forget the digest of an item without rows, so that another attempt may have a different item there."""
        if self._digests is not None:
            self._digests[index] = 0

    def is_same_item(self, index: int, digest: int) -> bool:
        """Whether the item with this digest is the stored one; True if it is not known which item is stored."""
        stored = self._digests[index] if self._digests is not None else 0
        return not stored or stored == digest

    def has_item(self, index: int) -> bool:
        """Whether the item is finished or has stored rows."""
        return index in self.finished or index in self.stored

    @property
    def last_index(self) -> int:
        """The largest index of a finished item or of one with stored rows, or -1."""
        return max(self.finished.last, max(self.stored, default=-1))

    def changed(self, key: int, problem: str, step: str | None = None) -> WorkflowChangedError:
        return WorkflowChangedError(self._run_id, step or self._step.name, problem, map_path=self.path, item_index=key)

    def _definition(self, key: int, row: VisitRow) -> Definition:
        return self._map.item_workflow

    def _keep_params(self, key: int, params: str) -> None:
        if self._digests is not None:
            self._digests[key] = stored_digest(params)

    def _key_of(self, row: VisitRow) -> tuple[int, int]:
        scope, begin = row.scope, len(self.path) + 1
        end = scope.find("]", begin)
        digits = scope[begin:end]
        is_inside = scope[: begin - 1] == self.path and scope[begin - 1 : begin] in {"", "/", "["}
        if is_inside and (end < 0 or scope[begin - 1] != "[" or not (digits.isascii() and digits.isdigit())):
            problem = f"is a map now, but the finished step {row.step_name!r} inside of it belongs to no item"
            raise WorkflowChangedError(self._run_id, self._step.name, problem, role="step")
        if not is_inside:
            raise CorruptRecordError(f"the stored path {row.path!r} does not belong to the map {self.path!r}")
        return int(digits), end + 1
