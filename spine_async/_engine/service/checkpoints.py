"""Reads checkpoints: finished visits, each with the context after it.

Theory of operation: a stored visit contains only the values that it added. The context after a visit consists of the
values that earlier visits of its own scope and of the enclosing scopes added. If several added a value for one key, the
innermost scope has priority, and within a scope the latest visit. A child workflow sees nothing of what encloses it:
its scope is the outermost one. So only the rows of these scopes are read, in pages.
A value is decoded at most once, and only if a returned context contains it. The view `core_workflow_checkpoints`
computes the same in SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from spine_async._engine.runtime.plain_reads import last_visit
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.stored_run import load
from spine_async._engine.tasks import PeriodicYield
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import Document, JsonValue
from spine_async._model.history import Checkpoint
from spine_async._model.large_text import LARGE_TEXT, split_members
from spine_async._model.limits import MAX_STORED_INT
from spine_async._model.list_document import extended
from spine_async._model.run_row import StoredRun
from spine_async._model.status import FINISHED, StepStatus
from spine_async._model.visit_filter import VisitFilter
from spine_async._model.visit_row import VisitRow

_PAGE = 200  # rows; converting a page takes a millisecond
_SCOPES = 100  # map items whose rows are read by one call
_SCOPE_PAGE = 400  # rows of these items; each page finds all of them again
_DECODED_AT_ONCE = 100  # small values


async def checkpoints(runtime: Runtime, run_id: str, after: int, limit: int) -> list[Checkpoint]:
    """At most `limit` checkpoints with a number above `after`, in order; those of map items included.

    Raises:
        RunNotFoundError: There is no run of this id.
    """
    stored = await load(runtime, run_id)
    rows = await _page_rows(runtime, run_id, max(after, 0), limit)
    if not rows:
        return []
    contexts = await _Contexts.of(runtime, stored)
    needed = {scope for row in rows if row.status in FINISHED for scope in _chain(row.scope)}
    # The row with an item's params is the first one of its scope.
    known = {row.scope for row in rows if row.item_params is not None}
    await contexts.load(needed - known, rows[0].seq - 1)
    found = []
    for row in rows:
        await contexts.add(row)
        if row.status in FINISHED:
            found.append(await contexts.checkpoint(row))
    return found


async def last_checkpoint(runtime: Runtime, run_id: str, step: str) -> Checkpoint | None:
    """The checkpoint of the last finished visit of `step`, or of the visit with this path; None if there is none.

    Raises:
        RunNotFoundError: There is no run of this id.
    """
    stored = await load(runtime, run_id)
    if not isinstance(step, str) or not step.isprintable():
        return None
    row = await last_visit(runtime.store, run_id, step)
    if row is None:
        return None
    contexts = await _Contexts.of(runtime, stored)
    await contexts.load(_chain(row.scope), row.seq)
    return await contexts.checkpoint(row)


async def _page_rows(runtime: Runtime, run_id: str, after: int, limit: int) -> list[VisitRow]:
    """The rows up to the last of `limit` finished visits."""
    rows: list[VisitRow] = []
    left = limit
    while left > 0 and after < MAX_STORED_INT:
        page = await runtime.store.visits(run_id, VisitFilter(after=after, limit=min(left, _PAGE)))
        if not page:
            break
        rows += page
        left -= sum(row.status in FINISHED for row in page)
        after = page[-1].seq
    return rows


class _Value:
    """A stored value, decoded when it is first needed.

    Args:
        document: The value, or the elements that a list gets.
        is_rest: Whether it is the elements that the list of an enclosing scope gets.
    """

    __slots__ = ("_document", "_has_value", "_value", "is_rest")

    def __init__(self, document: Document, *, is_rest: bool = False) -> None:
        self._document = document
        self._has_value = False
        self._value: JsonValue = None
        self.is_rest = is_rest

    @property
    def is_large(self) -> bool:
        return not self._has_value and self._document.size > LARGE_TEXT

    def get(self) -> JsonValue:
        if not self._has_value:
            self._value, self._has_value = self._document.value(), True
        return self._value

    def extended(self, rest: _Value) -> _Value:
        """The list with these elements at its end."""
        return _Value(extended(self._document, rest._document), is_rest=self.is_rest)


_Values: TypeAlias = "dict[str, _Value | None]"


@dataclass(slots=True)
class _Layer:
    """The values that the visits of one scope added; None for the output of a step that failed last."""

    params: _Values = field(default_factory=dict)
    outputs: _Values = field(default_factory=dict)
    quality: _Values = field(default_factory=dict)

    def add(self, row: VisitRow) -> None:
        if row.status is StepStatus.WAITING:
            return
        for text in (row.item_params, row.updates):
            if text is not None:
                self.params |= _values(split_members(text))
        if row.appends is not None:
            appended: _Values = {key: _Value(each, is_rest=True) for key, each in split_members(row.appends).items()}
            self.params = _merged(self.params, appended)
        if row.status is StepStatus.OVERRIDE:
            return
        if row.output is not None:
            self.outputs[row.step_name] = _Value(Document(row.output))
        elif row.status is StepStatus.FAILED:
            self.outputs[row.step_name] = None
        if row.quality is not None:
            self.quality[row.step_name] = _Value(Document(row.quality))


class _Contexts:
    """The contexts of a run at a position, by scope."""

    def __init__(self, runtime: Runtime, stored: StoredRun) -> None:
        self._runtime = runtime
        self._stored = stored
        self._layers: dict[str, _Layer] = {}
        self._partition = _Value(Document(stored.partition or "null"))
        self._yield = PeriodicYield()

    @classmethod
    async def of(cls, runtime: Runtime, stored: StoredRun) -> _Contexts:
        """The contexts before the first step."""
        contexts = cls(runtime, stored)
        initial = (stored.params, stored.initial_outputs, stored.initial_quality)
        with CorruptionGuard(stored.run_id):
            if max(map(len, initial)) > LARGE_TEXT:
                params, outputs, quality = await runtime.run_on_thread(_split_all, initial)
            else:
                params, outputs, quality = _split_all(initial)
        contexts._layers[""] = _Layer(params, outputs, quality)
        return contexts

    async def load(self, scopes: Iterable[str], until: int) -> None:
        """Add the rows of these scopes up to the number `until`."""
        items = sorted(scope for scope in scopes if scope)
        await self._load([""], until, _PAGE)
        for first in range(0, len(items), _SCOPES):
            await self._load(items[first : first + _SCOPES], until, _SCOPE_PAGE)

    async def _load(self, scopes: Sequence[str], until: int, limit: int) -> None:
        after = 0
        while after < until:
            chosen = VisitFilter(scopes, after=after, limit=limit)
            page = await self._runtime.store.visits(self._stored.run_id, chosen)
            for row in page:
                if row.seq > until:
                    return
                await self.add(row)
            if len(page) < limit:
                return
            after = page[-1].seq

    async def add(self, row: VisitRow) -> None:
        """Add a row, which comes after those that were added for its scope before."""
        layer = self._layers.setdefault(row.scope, _Layer())
        with CorruptionGuard(self._stored.run_id):
            if len(row.updates or "") + len(row.item_params or "") > LARGE_TEXT:
                await self._runtime.run_on_thread(layer.add, row)
            else:
                layer.add(row)
        await self._yield()

    async def checkpoint(self, row: VisitRow) -> Checkpoint:
        """The checkpoint of a visit, at the position after it."""
        layers = [self._layers[scope] for scope in _chain(row.scope) if scope in self._layers]
        with CorruptionGuard(self._stored.run_id):
            snapshot: dict[str, JsonValue] = {
                "params": await self._decoded(layer.params for layer in layers),
                "outputs": await self._decoded(layer.outputs for layer in layers),
                "quality": await self._decoded(layer.quality for layer in layers),
                "partition": self._partition.get(),
            }
        return Checkpoint(
            run_id=self._stored.run_id,
            workflow_name=self._stored.workflow_name,
            step_name=row.step_name,
            path=row.path,
            seq=row.seq,
            step_type=row.step_type,
            created_at=row.completed_at,
            context_snapshot=snapshot,
        )

    async def _decoded(self, layers: Iterable[_Values]) -> JsonValue:
        merged: _Values = {}
        for layer in layers:
            merged = _merged(merged, layer)
        decoded: dict[str, JsonValue] = {}
        for number, (key, value) in enumerate(merged.items(), 1):
            if value is None:
                continue
            decoded[key] = await self._runtime.run_on_thread(value.get) if value.is_large else value.get()
            if number % _DECODED_AT_ONCE == 0:
                await self._yield()
        return decoded


def _chain(scope: str) -> Iterator[str]:
    """The scope and those whose values it sees, outermost first: "", `a[1]`, `a[1]/b[2]`; `child`, `child/a[1]`."""
    parts = scope.split("/") if scope else []
    isolated = [count for count, part in enumerate(parts, 1) if not part.endswith("]")]
    first = isolated[-1] if isolated else 0
    for count in range(first, len(parts) + 1):
        yield "/".join(parts[:count])


def _merged(values: _Values, over: _Values) -> _Values:
    """The values, overlaid by others; lists get the elements that are to be appended."""
    merged = {**values, **over}
    for key, value in over.items():
        below = values.get(key)
        if value is not None and value.is_rest and below is not None:
            merged[key] = below.extended(value)
    return merged


def _split_all(texts: Iterable[str]) -> list[_Values]:
    return [_values(split_members(text)) for text in texts]


def _values(documents: dict[str, Document]) -> _Values:
    return {key: _Value(document) for key, document in documents.items()}
