"""The step that runs a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spine_async._model.shown import shown
from spine_async._model.status import StepType
from spine_async._model.step import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStep(Step):
    """Runs a pipeline through the dispatcher. `config` contains the params of the step."""

    step_type: ClassVar[StepType] = StepType.PIPELINE

    pipeline_name: str

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        if not isinstance(self.pipeline_name, str) or not self.pipeline_name or not self.pipeline_name.isprintable():
            raise self._error(f"pipeline is {shown(self.pipeline_name)}; it must be the name of a pipeline")

    @property
    def _config_name(self) -> str:
        return "params"
