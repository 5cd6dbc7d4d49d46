"""The step that runs a workflow for each item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from spine_async._model.item_source import ItemCall, ItemSource, check_tolerance
from spine_async._model.shown import shown
from spine_async._model.signature import check_callable
from spine_async._model.status import StepType
from spine_async._model.step import Definition, Step
from spine_async._model.step_options import (
    Concurrency,
    Handler,
    check_concurrency,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapStep(Step):
    """Runs a workflow for each item."""

    step_type: ClassVar[StepType] = StepType.MAP
    can_interrupt: ClassVar[bool] = True
    nests_steps: ClassVar[bool] = True

    iterator: Definition | Handler
    source: ItemSource
    item_param: str = "item"
    max_concurrency: Concurrency = 10
    tolerated_failures: int | float = 0
    collect: bool = True

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        self._checked(lambda: check_concurrency(self.max_concurrency))
        if not isinstance(self.item_param, str) or not self.item_param or not self.item_param.isprintable():
            raise self._error(f"item_param is {shown(self.item_param)}; it must be the name of a param")
        self._checked(lambda: check_tolerance(self.tolerated_failures))
        if isinstance(self.source, ItemCall):
            function = self.source.function
            self._checked(lambda: check_callable("items", function))
        if callable(self.iterator):
            self._checked(lambda: check_callable("handler", self.iterator))
        if self.quality_thresholds is not None:
            raise self._error(
                "a map reports no quality metrics, so quality_thresholds would fail every run; set them on a step of "
                "its iterator, or on a later step that reports metrics of the whole map"
            )

    @property
    def item_workflow(self) -> Definition:
        """The workflow that runs for each item."""
        return self.iterator  # type: ignore[return-value]

    @property
    def inner(self) -> Mapping[str, Definition]:
        return {"": self.item_workflow}
