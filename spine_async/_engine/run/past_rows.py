"""The rows that a run has written, and the contexts at the end of the scopes that they belong to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from spine_async._engine.run.stored_values import StoredValues
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.scope import Scope
from spine_async._engine.tasks import run_shielded
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import (
    for_child,
    for_item,
    models_of,
    outside_steps,
    params_of,
    with_documents,
    with_models,
)
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import encode_object
from spine_async._model.large_text import split_members
from spine_async._model.naming import COMPENSATION_MARK
from spine_async._model.status import StepStatus
from spine_async._model.step import Definition, Step
from spine_async._model.visit_filter import VisitFilter
from spine_async._model.visit_row import VisitRow
from spine_async._model.workflow_step import WorkflowStep
from spine_async.errors import SharingError, StoreError

_PAGE = 200


def step_at(workflow: Definition, scope: str, name: str) -> Step | None:
    """The step with this name in the scope with this path; None if the definition has none."""
    inside = _workflows(workflow, scope)
    if inside is None:
        return None
    definition = inside[-1].workflow if inside else workflow
    return definition.step(name) if name in definition.positions else None


class PastRows:
    """The rows of a run: the stored ones, or those that were kept because nothing is stored.

    Args:
        runtime: What all runs share.
        scope: The run's own scope, after its last step.
    """

    def __init__(self, runtime: Runtime, scope: Scope) -> None:
        self._runtime = runtime
        self._scope = scope
        self._contexts: dict[str, WorkflowContext] = {}
        self._kept = scope.run.pending.kept
        for number, row in enumerate(self._kept or (), 1):
            row.seq = number

    async def at(self, seq: int) -> VisitRow:
        """The row with this number."""
        if self._kept is not None:
            return self._kept[seq - 1]
        (row,) = await self._page(seq - 1, 1, None)
        return row

    async def context_of(self, row: VisitRow) -> WorkflowContext:
        """The context at the end of the scope that the row belongs to."""
        context = self._scope.context
        chain = _workflows(self._scope.run.workflow, row.scope) or []
        for path in self._contexts.keys() - {inner.path for inner in chain}:
            del self._contexts[path]
        for inner in chain:
            if inner.path not in self._contexts:
                self._contexts[inner.path] = await self._inside(context, inner)
            context = self._contexts[inner.path]
        return context

    async def pages(self, scope: str | None = None) -> AsyncIterator[VisitRow]:
        """The rows in the order of their numbers; None: those of all scopes.

        Raises:
            CommitFailed: The store failed, or belongs to another event loop or process.
        """
        if self._kept is not None:
            for row in list(self._kept):
                if scope is None or row.scope == scope:
                    yield row
            return
        after = 0
        while True:
            page = await self._page(after, _PAGE, scope)
            for row in page:
                yield row
            if len(page) < _PAGE:
                return
            after = page[-1].seq

    async def _inside(self, context: WorkflowContext, inner: _Inner) -> WorkflowContext:
        """The context at the end of an inner scope; `context` is that of the scope around it."""
        workflow, own = inner.workflow, self._runtime.models(inner.workflow)
        if isinstance(inner.step, WorkflowStep):
            context = for_child(context, workflow.name, {}, own)
        else:
            context = with_models(outside_steps(context), {**models_of(context), **own})
            present = params_of(context)
            defaults = {key: each for key, each in workflow.defaults.items() if key not in present}
            context = with_documents(context, encode_object(defaults))
        values = StoredValues(context, workflow)
        async for row in self.pages(inner.path):
            with CorruptionGuard(self._scope.run.run_id):
                _add(values, row)
        return values.applied()

    async def _page(self, after: int, limit: int, scope: str | None) -> list[VisitRow]:
        chosen = VisitFilter(None if scope is None else [scope], after=after, limit=limit)
        call = self._runtime.store.visits(self._scope.run.run_id, chosen)
        try:
            return await run_shielded(call, "spine_async load")
        except (StoreError, SharingError) as exc:
            raise CommitFailed(exc) from None


def _add(values: StoredValues, row: VisitRow) -> None:
    if row.item_params is not None:
        values.context = for_item(values.context, split_members(row.item_params))
    if row.status is StepStatus.WAITING or row.step_name.endswith(COMPENSATION_MARK):
        return
    values.add_params(row)
    if row.status is not StepStatus.OVERRIDE:
        values.add_result(row)


@dataclass(frozen=True, slots=True)
class _Inner:
    """A scope inside a step: its path, the step, and the workflow that is executed there."""

    path: str
    step: Step
    workflow: Definition


def _workflows(workflow: Definition, scope: str) -> list[_Inner] | None:
    """The scope and those around it, outermost first, without that of the run.

    Returns:
        None if the definition has no such scope.
    """
    found: list[_Inner] = []
    path = ""
    for segment in scope.split("/") if scope else ():
        path = f"{path}/{segment}" if path else segment
        name, _, key = segment.partition("[")
        name = name.partition("#")[0]
        if name not in workflow.positions:
            return None
        step = workflow.step(name)
        inner = step.inner.get(key.removesuffix("]")) or step.inner.get("")
        if inner is None:
            return None
        workflow = inner
        found.append(_Inner(path, step, workflow))
    return found
