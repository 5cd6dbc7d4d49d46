"""The fingerprint of a workflow, by which a stored run recognises that its definition has changed."""

from __future__ import annotations

import hashlib

from spine_async._model.choice_step import ChoiceStep
from spine_async._model.document import encode
from spine_async._model.map_step import MapStep
from spine_async._model.parallel_step import ParallelStep
from spine_async._model.pipeline_step import PipelineStep
from spine_async._model.signal_step import SignalStep
from spine_async._model.step import Definition, Step
from spine_async._model.wait_step import WaitStep
from spine_async._model.workflow_step import WorkflowStep

_UNWINDS = "~"
"""Last character of the fingerprint of a workflow that has cleanup steps or compensations."""


def fingerprint_of(workflow: Definition) -> str:
    """A digest of the names, kinds and targets of the steps; the code of handlers is not included.

    It ends with a mark if runs must not be stopped without their definition, because there is something to execute.
    """
    digest = hashlib.sha256(encode(_plan(workflow)).text.encode()).hexdigest()[:32]
    return digest + _UNWINDS if workflow.cleanup or workflow.compensates else digest


def has_unwinding(fingerprint: str) -> bool:
    """Whether the workflow with this fingerprint has cleanup steps or compensations."""
    return fingerprint.endswith(_UNWINDS)


def _plan(workflow: Definition) -> dict[str, object]:
    plan = {"name": workflow.name, "version": workflow.version, "steps": [_planned(step) for step in workflow.steps]}
    if workflow.cleanup:
        plan["cleanup"] = [_planned(step) for step in workflow.cleanup]
    return plan


def _planned(step: Step) -> dict[str, object]:
    plan: dict[str, object] = {"name": step.name, "type": step.step_type, "targets": list(step.targets)}
    if step.compensate is not None:
        plan["compensates"] = True
    if step.catch is not None:
        plan["catch"] = dict(step.catch)
    if isinstance(step, PipelineStep):
        plan["pipeline"] = step.pipeline_name
    if isinstance(step, MapStep):
        plan["iterator"] = _plan(step.item_workflow)
    if isinstance(step, ParallelStep):
        plan["branches"] = {name: fingerprint_of(branch) for name, branch in step.inner.items()}
    if isinstance(step, WorkflowStep):
        # A run of its own is compared with its own definition.
        plan["workflow"] = fingerprint_of(step.child) if step.queue is None else step.child.name
        plan["is_queued"] = step.queue is not None
    if isinstance(step, ChoiceStep):
        plan["has_else"] = step.else_step is not None
    if isinstance(step, WaitStep):
        plan["seconds"] = step.seconds
    if isinstance(step, SignalStep):
        plan |= {"signal": step.signal, "timeout": step.timeout, "on_timeout": step.on_timeout}
    return plan
