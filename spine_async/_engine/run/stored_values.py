"""What the results of visits add to a context: params, outputs, quality metrics and failures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from spine_async._engine.state.params import under_all_names
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import has_failures, params_of, with_documents, with_failure
from spine_async._model.document import Document, PlainDocument
from spine_async._model.failure import ErrorCategory
from spine_async._model.large_text import split_members
from spine_async._model.list_document import extended
from spine_async._model.quality import QualityMetrics
from spine_async._model.status import StepStatus
from spine_async._model.step import Definition
from spine_async._model.step_failure import StepFailure
from spine_async._model.visit_row import PastVisit


@dataclass(slots=True)
class StoredValues:
    """What stored rows add to a context; added in one step, because each change copies the context.

    Args:
        context: The context before the rows.
        workflow: The definition of their scope, or None if it is not known.
    """

    context: WorkflowContext
    workflow: Definition | None
    updates: dict[str, Document] = field(default_factory=dict, init=False)
    outputs: dict[str, Document] = field(default_factory=dict, init=False)
    failures: dict[str, StepFailure | None] = field(default_factory=dict, init=False)

    def add_params(self, row: PastVisit) -> None:
        """Add the params that a row changes."""
        changed: Mapping[str, Document] = split_members(row.updates) if row.updates else {}
        if row.appends is not None:
            params = params_of(self.context)
            lists = grown_lists(split_members(row.appends), lambda key: self.updates.get(key) or params.get(key))
            changed = {**changed, **lists}
        if changed and row.status is not StepStatus.OVERRIDE:
            changed = with_synonyms(self.workflow, self.context, changed, self.updates)
        self.updates |= changed

    def add_result(self, row: PastVisit) -> Document | None:
        """Add the result of a visit; returns its output."""
        name, output = row.step_name, _stored_output(row)
        self.failures[name] = failure_of(row)
        if output is not None:
            self.outputs[name] = output
        elif row.status is StepStatus.FAILED:
            self.outputs.pop(name, None)
            self.context = with_failure(self.context, name, None, has_output=False)
        if row.quality is not None:
            self.context = self.context.with_quality(name, read_quality(row.quality))
        return output

    def applied(self) -> WorkflowContext:
        """The context after the rows."""
        context = with_documents(self.context, self.updates, self.outputs)
        for name, failure in self.failures.items():
            if failure is not None or has_failures(context):
                context = with_failure(context, name, failure)
        return context


def grown_lists(appends: Mapping[str, Document], present: Callable[[str], Document | None]) -> dict[str, Document]:
    """The params that are lists, with the appended elements."""
    return {key: extended(present(key), each) for key, each in appends.items()}


def failure_of(row: PastVisit) -> StepFailure | None:
    """The failure that a row of a visit reports, or None."""
    if row.status is not StepStatus.FAILED:
        return None
    return StepFailure(row.error or "", row.error_category or ErrorCategory.INTERNAL, row.attempts)


def with_synonyms(
    workflow: Definition | None,
    context: WorkflowContext,
    updates: Mapping[str, Document],
    earlier: Collection[str] = (),
) -> Mapping[str, Document]:
    """Updates of params; a field of the `params_model` has the new value under all its names."""
    model = workflow.params_model if workflow is not None else None
    return updates if model is None else under_all_names(model, {*params_of(context), *earlier}, updates)


def read_quality(text: str) -> QualityMetrics:
    """Stored quality metrics."""
    return QualityMetrics(**Document(text).value())  # type: ignore[arg-type]


def _stored_output(row: PastVisit) -> Document | None:
    if row.output is None:
        return None
    return Document(row.output) if row.status is StepStatus.COMPLETED else PlainDocument(row.output)
