"""The step that runs several branches at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias

from spine_async._model.naming import name_problem
from spine_async._model.shown import shown
from spine_async._model.signature import check_callable
from spine_async._model.status import StepType
from spine_async._model.step import Definition, Step
from spine_async._model.step_options import Concurrency, Handler, check_concurrency

Branch: TypeAlias = "Definition | Handler | Step | Sequence[Step]"
"""What a branch runs: a workflow, a handler, a step, or a list of steps."""

Need: TypeAlias = Literal["all", "any"] | int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelStep(Step):
    """Runs branches at the same time. In the steps of a workflow, each branch is a workflow."""

    step_type: ClassVar[StepType] = StepType.PARALLEL
    can_interrupt: ClassVar[bool] = True
    nests_steps: ClassVar[bool] = True

    branches: Mapping[str, Branch]
    need: Need = "all"
    max_concurrency: Concurrency | None = None

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        self._check_branches()
        self._check_limits()
        if self.quality_thresholds is not None:
            raise self._error(
                "a parallel step reports no quality metrics, so quality_thresholds would fail every run; set them on "
                "a step of a branch"
            )

    @property
    def needed(self) -> int:
        """How many branches must succeed."""
        if isinstance(self.need, int):
            return self.need
        return len(self.branches) if self.need == "all" else 1

    @property
    def inner(self) -> Mapping[str, Definition]:
        return self.branches  # type: ignore[return-value] # a workflow has replaced the other forms by workflows

    def _check_branches(self) -> None:
        given: object = self.branches
        if not isinstance(given, Mapping):
            raise self._error(f"branches is of type {type(given).__name__}; it must be a mapping of names to branches")
        if not given:
            raise self._error("branches is empty; a parallel step needs at least one branch")
        for name, branch in given.items():
            problem = name_problem(name)
            if problem is not None:
                raise self._error(f"branch {str(name)[:40]!r}: {problem}")
            if callable(branch):
                self._checked(lambda branch=branch: check_callable("handler", branch))  # type: ignore[misc]
        self._set("branches", MappingProxyType(dict(given)))

    def _check_limits(self) -> None:
        need, count = self.need, len(self.branches)
        is_number = isinstance(need, int) and not isinstance(need, bool)
        if not ((isinstance(need, str) and need in {"all", "any"}) or (is_number and 1 <= int(need) <= count)):
            raise self._error(f"need is {shown(need)}; it must be 'all', 'any' or an integer from 1 to {count}")
        if self.max_concurrency is not None:
            self._checked(lambda: check_concurrency(self.max_concurrency))
