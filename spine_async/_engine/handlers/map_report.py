"""What a map knows of its items: the context each begins with, which were lost, and what all came to."""

from __future__ import annotations

from dataclasses import dataclass

from spine_async._engine.handlers.feed import Feed
from spine_async._engine.state.map_progress import MapMemory
from spine_async._model.context import WorkflowContext
from spine_async._model.document import Document, DocumentMapping, encode, encode_object, join_array, split_object
from spine_async._model.record import VisitRow
from spine_async._model.step import MapStep
from spine_async._model.step_result import StepResult
from spine_async._model.workflow import Workflow
from spine_async.errors import StepError

_ERRORS_KEPT_UNCOLLECTED = 100
"""Source: public contract, "Results and context"."""


@dataclass(slots=True)
class ItemLoss:
    """An item that failed."""

    index: int
    error: str
    category: str

    @property
    def told(self) -> dict[str, object]:
        return {"index": self.index, "error": self.error, "category": self.category}


class MapReport:
    """Counts the items of one attempt of a map."""

    def __init__(self, step: MapStep, memory: MapMemory, feed: Feed) -> None:
        self._step = step
        self._memory = memory
        self._feed = feed
        self._failed = 0
        self._losses: list[ItemLoss] = []

    def lose(self, loss: ItemLoss) -> None:
        self._failed += 1
        if self._step.collect or len(self._losses) < _ERRORS_KEPT_UNCOLLECTED:
            self._losses.append(loss)

    @property
    def has_failed(self) -> bool:
        """Whether more items failed than the step tolerates, as far as that can be said already."""
        tolerated = self._step.tolerated_failures
        if isinstance(tolerated, int):
            return self._failed > tolerated
        total = self._feed.total
        return self._failed > 0 and (tolerated == 0 or (total is not None and self._failed > tolerated * total))

    def result(self) -> StepResult:
        """What the map came to."""
        losses = sorted(self._losses, key=lambda loss: loss.index)
        if self.has_failed:
            return StepResult.fail(self._told(losses[0]), losses[0].category)
        return StepResult.ok(DocumentMapping(self._output(losses)))

    def _told(self, first: ItemLoss) -> str:
        return (
            f"{self._failed} of {self._feed.taken} items failed, more than the tolerated "
            f"{self._step.tolerated_failures}; first: item {first.index}: {first.error}"
        )

    def _output(self, losses: list[ItemLoss]) -> Document:
        outputs = self._memory.outputs
        results = join_array([outputs.get(index, "null") for index in range(self._feed.taken)])
        counts = f'"succeeded":{len(self._memory.finished)},"failed":{self._failed}'
        errors = encode([loss.told for loss in losses]).text
        return Document(f'{{"results":{results if self._step.collect else "null"},{counts},"errors":{errors}}}')


def base_context(context: WorkflowContext, workflow: Workflow) -> WorkflowContext:
    """What the contexts of all items have in common: the map's own, with the models and defaults of their workflow."""
    models = workflow.models
    if context.models:
        own = workflow.positions
        models = {**{name: model for name, model in context.models.items() if name not in own}, **models}
    defaults = {key: each for key, each in workflow.defaults.items() if key not in context.params}
    return context.outside_steps().with_models(models).with_documents(encode_object(defaults))


def check_same_item(step: MapStep, index: int, item: Document, rows: list[VisitRow]) -> None:
    """Refuse to go on with an item that is not the one stored at this index.

    Raises:
        StepError: It is another one; category CONFIGURATION.
    """
    opening = next((row.opening for row in rows if row.opening is not None), "{}")
    stored = split_object(opening).get(step.item_param)
    if stored is not None and stored.value() != item.value():
        told = (
            f"items[{index}] is not the item that was there before this run was interrupted; "
            "the items of a map must be the same in every execution of a run"
        )
        raise StepError(told, category="CONFIGURATION")
