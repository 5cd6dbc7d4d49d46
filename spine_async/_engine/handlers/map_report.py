"""Results of a map's items: the context that items begin with, their failures, and the output of the map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from spine_async._engine.handlers.feed import Feed
from spine_async._engine.state.map_progress import MapProgress
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import models_of, outside_steps, params_of, with_documents, with_models
from spine_async._model.document import Document, DocumentMapping, encode, encode_object, join_array
from spine_async._model.map_step import MapStep
from spine_async._model.model_input import all_names
from spine_async._model.output_model import OutputModel
from spine_async._model.progress import Progress
from spine_async._model.step import Definition
from spine_async._model.step_result import StepResult

_ROUNDING = 1e-15  # a share that was computed, such as 1 - 0.9, is slightly less than the number that it stands for
_ERRORS_KEPT_UNCOLLECTED = 100
"""Source: `docs/concepts.md`, "Maps": `collect=False`."""


@dataclass(slots=True)
class ItemFailure:
    """An item that failed."""

    index: int
    error: str
    category: str

    def as_dict(self) -> dict[str, object]:
        """The entry of the failure in the map's output."""
        return {"index": self.index, "error": self.error, "category": self.category}


class MapReport:
    """Counts the finished and failed items of one attempt of a map.

    Attributes:
        failed: Number of failed items.
    """

    def __init__(self, step: MapStep, progress: MapProgress, feed: Feed) -> None:
        self._step = step
        self._progress = progress
        self._feed = feed
        self._is_share = isinstance(step.tolerated_failures, float)
        self.failed = 0
        self._failures: list[ItemFailure] = []
        self._first: tuple[int, BaseException | None] | None = None

    def add_failure(self, failure: ItemFailure, exception: BaseException | None = None) -> None:
        """Record that an item failed, with the exception of its step."""
        self.failed += 1
        if self._first is None or failure.index < self._first[0]:
            self._first = (failure.index, exception)  # of one item only: exceptions keep their frames alive
        if self._step.collect or len(self._failures) < _ERRORS_KEPT_UNCOLLECTED:
            self._failures.append(failure)

    @property
    def has_failed(self) -> bool:
        """Whether more items failed than the step tolerates, as far as is known so far."""
        return self._are_too_many(self.failed)

    def tolerates_another(self) -> bool:
        """Whether the map continues if another item fails, as far as is known so far."""
        return not self._are_too_many(self.failed + 1)

    def _are_too_many(self, failed: int) -> bool:
        tolerated, total = self._step.tolerated_failures, self._feed.total
        if not self._is_share:
            return failed > tolerated
        if total is None:
            return failed > 0 and tolerated == 0
        # A product may round below the share that was written: 29 > 0.29 * 100.
        return failed > 0 and failed / total > tolerated + _ROUNDING

    def progress(self) -> Progress:
        """How many items have ended, and how many there are if that is known."""
        return Progress(len(self._progress.finished) + self.failed, self._feed.total)

    def result(self) -> StepResult:
        """The result of the map."""
        failures = sorted(self._failures, key=lambda failure: failure.index)
        if self.has_failed:
            failure = StepResult.fail(self._message(failures[0]), failures[0].category)
            return replace(failure, exception=self._first[1] if self._first is not None else None)
        return StepResult.ok(DocumentMapping(self._output(failures)))

    def _message(self, first: ItemFailure) -> str:
        return (
            f"{self.failed} of {self._feed.taken} items failed, more than the tolerated "
            f"{self._step.tolerated_failures}; first: item {first.index}: {first.error}"
        )

    def _output(self, failures: list[ItemFailure]) -> Document:
        results, outputs = "null", self._progress.outputs
        if self._step.collect:
            results = join_array([outputs.get(index, "null") for index in range(self._feed.taken)])
        counts = f'"succeeded":{len(self._progress.finished)},"failed":{self.failed}'
        errors = encode([failure.as_dict() for failure in failures]).text
        return Document(f'{{"results":{results},{counts},"errors":{errors}}}')


def base_context(context: WorkflowContext, workflow: Definition, models: Mapping[str, OutputModel]) -> WorkflowContext:
    """The context that all items share: the map's own, with the models and defaults of the iterator."""
    inherited = models_of(context)
    if inherited:
        own = workflow.positions
        models = {**{name: model for name, model in inherited.items() if name not in own}, **models}
    given = set(params_of(context))
    if workflow.params_model is not None:
        given |= all_names(workflow.params_model, given)
    defaults = {key: each for key, each in workflow.defaults.items() if key not in given}
    return with_documents(with_models(outside_steps(context), models), encode_object(defaults))
