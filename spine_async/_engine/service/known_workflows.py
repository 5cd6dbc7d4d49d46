"""The workflows that a runner knows by name."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from spine_async._model.step import Definition
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_step import WorkflowStep


def add_workflow(known: MutableMapping[str, Workflow], workflow: Workflow) -> None:
    """Add a workflow, and those that its steps execute as runs of their own; these replace no other workflow."""
    if known.get(workflow.name) is workflow:
        return  # nearly always
    known[workflow.name] = workflow
    for child in _queued_children(workflow):
        known.setdefault(child.name, child)


def _queued_children(workflow: Definition) -> Iterator[Workflow]:
    for step in workflow.steps:
        if isinstance(step, WorkflowStep) and step.queue is not None and isinstance(step.child, Workflow):
            yield step.child
            yield from _queued_children(step.child)
        for inner in step.inner.values():
            yield from _queued_children(inner)
