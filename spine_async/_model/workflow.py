"""Workflows: named lists of steps, validated when they are created."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from spine_async._model.document import encode_object
from spine_async._model.fingerprint import fingerprint_of
from spine_async._model.limits import MAX_STORED_INT, path_problem
from spine_async._model.map_step import MapStep
from spine_async._model.naming import MAX_NAME_LENGTH, text_problem
from spine_async._model.output_model import OutputModel
from spine_async._model.parallel_step import Branch, ParallelStep
from spine_async._model.shown import shown
from spine_async._model.step import Step
from spine_async._model.target import END
from spine_async._model.workflow_step import WorkflowStep
from spine_async.errors import DefinitionError, DuplicateStepError, SerializationError, UnknownStepError

if TYPE_CHECKING:
    from spine_async._model.plan import Plan

ITEM_STEP = "item"
"""Name of the one step of a map whose iterator is a plain handler."""


@dataclass(frozen=True, slots=True, init=False)
class Workflow:
    """The definition of a workflow.

    Args:
        name: Name of the workflow, stored with each run; may be empty for one that runs inside another.
        steps: The steps in order; at least one.
        domain: Business area; informational.
        description: Purpose; informational.
        version: Version of the definition, from 1 to 2,147,483,647; stored with each run.
        defaults: Default values of params; the params of `execute` override them.
        tags: Keywords; informational.
        params_model: Pydantic model that validates the params of `execute`.
        cleanup: Steps that are executed when the other steps have ended, whatever the outcome of the run is. They
            belong to a run, so a workflow that is executed inside the run of another one must not have any.

    Attributes:
        positions: Index of each step by name.
        models: The models that outputs are decoded to, by step name.
        compensates: Whether one of the steps, or of those inside of them, has a compensation.
        fingerprint: Digest of the names, kinds and targets of the steps, stored with each run.

    Raises:
        DuplicateStepError: Two steps have the same name.
        UnknownStepError: A choice, `next_step`, `catch` or `on_timeout` names a step that does not exist.
        DefinitionError: Another part of the definition is invalid; the message names workflow, step and problem.

    Example:
        >>> flow = Workflow("greet", [Step.lambda_("hello", lambda context, config: {"said": "hello"})])
        >>> flow.step_names
        ('hello',)
    """

    name: str
    steps: tuple[Step, ...]
    domain: str
    description: str
    version: int
    defaults: Mapping[str, object]
    tags: tuple[str, ...]
    params_model: type[BaseModel] | None
    cleanup: tuple[Step, ...]
    positions: Mapping[str, int] = field(repr=False, compare=False)
    compensates: bool = field(repr=False, compare=False)
    models: Mapping[str, OutputModel] = field(repr=False, compare=False)
    fingerprint: str = field(repr=False, compare=False)

    def __init__(
        self,
        name: str = "",
        steps: Iterable[Step] = (),
        *,
        domain: str = "",
        description: str = "",
        version: int = 1,
        defaults: Mapping[str, object] | None = None,
        tags: Iterable[str] = (),
        params_model: type[BaseModel] | None = None,
        cleanup: Iterable[Step] = (),
    ) -> None:
        _check_head(name, version, tags, params_model)
        _check_texts(name, domain=domain, description=description)
        given = _as_steps(name, steps)
        _check_steps(name, given)
        last = _cleanup_steps(name, cleanup, given)
        values = {
            "name": name,
            "steps": tuple(_checked_path(name, _with_inner_workflows(name, step)) for step in given),
            "domain": domain,
            "description": description,
            "version": version,
            "defaults": MappingProxyType(_checked_defaults(name, {} if defaults is None else defaults)),
            "tags": tuple(tags),
            "params_model": params_model,
            "cleanup": last,
            "models": MappingProxyType(
                {step.name: step.revived_as for step in (*given, *last) if step.revived_as is not None}
            ),
            "positions": MappingProxyType({step.name: index for index, step in enumerate(given)}),
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)
        object.__setattr__(self, "compensates", any(map(_compensates, self.steps)))
        _check_inner(self)
        try:
            object.__setattr__(self, "fingerprint", fingerprint_of(self))
        except SerializationError:
            raise DefinitionError("its maps are nested too deeply; their results could not be stored") from None

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the steps in order."""
        return tuple(self.positions)

    def step(self, name: str) -> Step:
        """The step with this name.

        Raises:
            UnknownStepError: The workflow has no such step.
        """
        if name not in self.positions:
            raise UnknownStepError(f"there is no step {name!r}; the steps are {_names(self.steps)}", workflow=self.name)
        return self.steps[self.positions[name]]

    def plan(self) -> Plan:
        """The steps with their kinds, options and targets, those of maps included; `str(plan)` is a text.

        Example:
            >>> print(Workflow("greet", [Step.wait("pause", 60)]).plan())
            greet (version 1)
              1. pause (wait, seconds=60)
        """
        from spine_async._model.plan import plan_of  # noqa: PLC0415 - a worker needs no plan

        return plan_of(self)

    def to_mermaid(self) -> str:
        """The steps as a Mermaid flowchart. Arrows for failures that `catch` names are dashed.

        Example:
            >>> print(Workflow("greet", [Step.wait("pause", 60)]).to_mermaid())
            flowchart TD
                start(["greet"]) --> s0
                s0{{"pause<br/>wait: 60"}}
                s0 --> finish
                finish(["end"])
        """
        from spine_async._model.mermaid import mermaid_of  # noqa: PLC0415 - the same

        return mermaid_of(self.plan())


def _check_head(name: object, version: object, tags: object, params_model: object) -> None:
    problem = text_problem(name, MAX_NAME_LENGTH) if name != "" else None
    if problem:
        raise DefinitionError(problem, workflow=str(name)[:40])
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DefinitionError(f"version is {shown(version)}; it must be an integer of at least 1", workflow=str(name))
    if version > MAX_STORED_INT:
        raise DefinitionError(f"version is larger than {MAX_STORED_INT:,}", workflow=str(name))
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        problem = "a string" if isinstance(tags, str) else f"of type {type(tags).__name__}"
        raise DefinitionError(f"tags is {problem}; pass a sequence of strings", workflow=str(name))
    if params_model is not None and not (isinstance(params_model, type) and issubclass(params_model, BaseModel)):
        raise DefinitionError(
            f"params_model is {shown(params_model)}; it must be a pydantic model class", workflow=str(name)
        )


def _check_texts(workflow: str, **texts: object) -> None:
    for option, text in texts.items():
        if not isinstance(text, str):
            raise DefinitionError(f"{option} is of type {type(text).__name__}; it must be a string", workflow=workflow)


def _as_steps(workflow: str, steps: object, option: str = "steps") -> tuple[Step, ...]:
    if isinstance(steps, Step):
        problem = f"{option} is a single step; pass a list of steps, such as [{type(steps).__name__}(…)]"
        raise DefinitionError(problem, workflow=workflow, step=steps.name)
    if isinstance(steps, (str, bytes, Mapping)) or not isinstance(steps, Iterable):
        problem = f"{option} is of type {type(steps).__name__}; it must be a list of steps"
        raise DefinitionError(problem, workflow=workflow)
    return tuple(steps)


def _check_steps(workflow: str, steps: tuple[Step, ...]) -> None:
    if not steps:
        raise DefinitionError("a workflow needs at least one step", workflow=workflow)
    seen: set[str] = set()
    for step in steps:
        if not isinstance(step, Step):
            raise DefinitionError(
                f"{shown(step)} is not a step; create it with Step.lambda_, .pipeline, .choice, .map, .parallel, "
                ".workflow, .wait, .wait_for_signal or .transaction",
                workflow=workflow,
            )
        if step.name in seen:
            raise DuplicateStepError("two steps have this name", workflow=workflow, step=step.name)
        seen.add(step.name)
    for step in steps:
        for target in step.targets:
            if target not in seen and target != END:
                problem = f"it jumps to {shown(target)}, which is not a step; the steps are {_names(steps)}"
                raise UnknownStepError(problem, workflow=workflow, step=step.name)


def _cleanup_steps(workflow: str, cleanup: Iterable[Step], steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The cleanup steps; their names differ from those of the other steps, and they jump only among themselves."""
    given = _as_steps(workflow, cleanup, "cleanup")
    if not given:
        return ()
    _check_steps(workflow, given)
    names = {step.name for step in steps}
    for step in given:
        if step.name in names:
            raise DuplicateStepError("a step and a cleanup step have this name", workflow=workflow, step=step.name)
    complete = tuple(_checked_path(workflow, _with_inner_workflows(workflow, step)) for step in given)
    for step in complete:
        if _compensates(step):
            problem = "compensate has no effect on a cleanup step, which is executed whatever the outcome is"
            raise DefinitionError(problem, workflow=workflow, step=step.name)
    return complete


def _check_inner(workflow: Workflow) -> None:
    for step in (*workflow.steps, *workflow.cleanup):
        if any(inner.cleanup for inner in step.inner.values()):
            problem = (
                "the workflow inside of it has cleanup steps, which belong to the end of a run; give them to the "
                "outermost workflow, or execute the workflow as a run of its own (Step.workflow with queue)"
            )
            raise DefinitionError(problem, workflow=workflow.name, step=step.name)


def _compensates(step: Step) -> bool:
    return step.compensate is not None or any(inner.compensates for inner in step.inner.values())


def _checked_defaults(workflow: str, defaults: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(defaults, Mapping):
        problem = f"defaults is of type {type(defaults).__name__}; it must be a mapping of names to values"
        raise DefinitionError(problem, workflow=workflow)
    try:
        return {key: document.value() for key, document in encode_object(defaults).items()}
    except SerializationError as exc:
        raise DefinitionError(f"defaults: {exc}", workflow=workflow) from None


def _with_inner_workflows(workflow: str, step: Step) -> Step:
    """The step with a workflow in place of each handler, step or list of steps that it runs."""
    if isinstance(step, ParallelStep):
        branches = {name: _branch(workflow, step, name, branch) for name, branch in step.branches.items()}
        return replace(step, branches=branches)
    if isinstance(step, WorkflowStep) and not isinstance(step.child, Workflow):
        problem = f"workflow is of type {type(step.child).__name__}; it must be a Workflow"
        raise DefinitionError(problem, workflow=workflow, step=step.name)
    if isinstance(step, WorkflowStep) and step.queue is not None and not step.child.name:
        problem = "a workflow that is executed as a run of its own needs a name; name it, or leave out queue"
        raise DefinitionError(problem, workflow=workflow, step=step.name)
    return _with_item_workflow(workflow, step) if isinstance(step, MapStep) else step


def _branch(workflow: str, step: ParallelStep, name: str, branch: Branch) -> Workflow:
    if isinstance(branch, Workflow):
        return branch
    if callable(branch):
        branch = Step.lambda_(name, branch)
    steps = [branch] if isinstance(branch, Step) else branch
    try:
        return Workflow(steps=_as_steps("", steps))
    except DefinitionError as exc:
        problem = f"branch {name!r}: {exc}; a branch is a workflow, a handler, a step, or a list of steps"
        raise type(exc)(problem, workflow=workflow, step=step.name) from None


def _with_item_workflow(workflow: str, step: MapStep) -> Step:
    if isinstance(step.iterator, Workflow):
        return step
    if not callable(step.iterator):
        problem = f"iterator is {shown(step.iterator)}; it must be a workflow or a handler"
        raise DefinitionError(problem, workflow=workflow, step=step.name)
    item_step = Step.lambda_(ITEM_STEP, step.iterator, step.config)
    return replace(step, iterator=Workflow(steps=[item_step]))


def _checked_path(workflow: str, step: Step) -> Step:
    problem = path_problem(step)
    if problem is not None:
        raise DefinitionError(problem, workflow=workflow, step=step.name)
    return step


def _names(steps: tuple[Step, ...]) -> str:
    return ", ".join(repr(step.name) for step in steps)
