"""The services that a workflow step with a queue needs: starting, reading and stopping runs of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from spine_async._model.document import Document
from spine_async._model.status import RunStatus
from spine_async._model.step import Definition
from spine_async._model.stop_request import StopRequest


@dataclass(frozen=True, slots=True)
class ChildRun:
    """A run to start as a child.

    Attributes:
        params: Its params, as a caller would give them.
    """

    run_id: str
    parent_run_id: str
    workflow: Definition
    params: Mapping[str, object]
    partition: Mapping[str, object] | None
    queue: str


@dataclass(frozen=True, slots=True)
class ChildState:
    """The state of a child.

    Attributes:
        workflow_name: Name of its workflow.
        output: Output of its last step, if it has completed.
    """

    status: RunStatus
    workflow_name: str
    error_step: str | None = None
    error: str | None = None
    error_category: str | None = None
    stop_reason: str | None = None
    output: Document | None = None


class ChildRuns(Protocol):
    """The child runs of all runs of a runner. Methods raise `StoreError` if the store fails."""

    async def start(self, child: ChildRun) -> bool:
        """Store the child as a due run of its queue, unless it is stored; returns whether it was not.

        Raises:
            DefinitionError: The params do not fit (`InvalidParamsError`), or the child cannot be started.
            SerializationError: A param has no strict JSON form.
            RunConflictError: The id belongs to another run.
        """
        ...

    async def state(self, run_id: str) -> ChildState | None:
        """The state of a child; None if it is not stored."""
        ...

    async def resume(self, run_id: str, workflow: Definition) -> None:
        """Make a child due again that has failed or stopped, unless it was compensated."""
        ...

    async def stop(self, run_id: str, request: StopRequest) -> None:
        """Stop the child, unless it has ended or is not stored; does not wait for its end."""
        ...

    async def stop_all(self, parent_run_id: str, request: StopRequest) -> None:
        """Stop the children of a run that have not ended."""
        ...
