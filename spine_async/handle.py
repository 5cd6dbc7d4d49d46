"""A handle of a stored run, by which any process waits for it, stops it or sends it signals."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Protocol

import anyio

from spine_async._arguments import wait_limit
from spine_async._model.history import Event, RunRecord
from spine_async._model.status import RunStatus
from spine_async._model.workflow_result import WorkflowResult


class RunAccess(Protocol):
    """The calls of a runner that a handle uses."""

    async def result(self, run_id: str, timeout: float | timedelta | None = None) -> WorkflowResult: ...
    async def get_run(self, run_id: str) -> RunRecord: ...
    async def _status(self, run_id: str) -> RunStatus: ...
    async def stop(self, run_id: str, reason: str | None = None, *, compensate: bool = False) -> bool: ...
    async def signal(self, run_id: str, name: str, value: object = None) -> None: ...
    def events(self, run_id: str, after: int = 0, follow: bool = False) -> AsyncGenerator[Event, None]: ...  # noqa: FBT001, FBT002


class RunHandle:
    """One run, wherever it is executed. It holds no connection, so it costs nothing to keep.

    Attributes:
        run_id: Id of the run.
    """

    __slots__ = ("_runner", "run_id")

    def __init__(self, runner: RunAccess, run_id: str) -> None:
        self._runner = runner
        self.run_id = run_id

    def __repr__(self) -> str:
        return f"RunHandle({self.run_id!r})"

    async def result(self, timeout: float | timedelta | None = None) -> WorkflowResult:
        """Wait until the run has ended, and return its result. It may move between processes meanwhile.

        Args:
            timeout: Seconds, or a `timedelta`; None waits without a limit.

        Raises:
            DefinitionError: `timeout` is no duration.
            TimeoutError: The run has not ended in that time; it continues.
            RunNotFoundError: The run is not stored, or was deleted.

        Cancellation:
            Ends the wait; the run continues.
        """
        return await self._runner.result(self.run_id, timeout)

    async def status(self) -> RunStatus:
        """The stored status."""
        return await self._runner._status(self.run_id)  # noqa: SLF001 - `get_run` also reads the outputs

    async def record(self) -> RunRecord:
        """The stored run."""
        return await self._runner.get_run(self.run_id)

    def events(self, after: int = 0, follow: bool = False) -> AsyncGenerator[Event, None]:  # noqa: FBT001, FBT002 - as in the runner
        """Events of the run with a number above `after`, in order; see `WorkflowRunner.events`.

        Args:
            after: Only events with a greater `seq`.
            follow: Whether to wait for further events until the run has ended.
        """
        return self._runner.events(self.run_id, after, follow)

    async def signal(self, name: str, value: object = None) -> None:
        """Send a signal to the run; see `WorkflowRunner.signal`."""
        await self._runner.signal(self.run_id, name, value)

    async def stop(self, reason: str | None = None, *, compensate: bool = False) -> bool:
        """Stop the run; returns whether it was under way. See `WorkflowRunner.stop`."""
        return await self._runner.stop(self.run_id, reason, compensate=compensate)


async def wait_first(*handles: RunHandle, timeout: float | timedelta | None = None) -> RunHandle:
    """Wait until the first of several runs has ended; returns its handle.

    Args:
        handles: The runs.
        timeout: Seconds, or a `timedelta`; None waits without a limit.

    Raises:
        ValueError: No handle is given, or `timeout` is no duration.
        TimeoutError: None of them has ended within `timeout` seconds.
        RunNotFoundError: One of the runs is not stored.
    """
    if not handles:
        raise ValueError("wait_first needs at least one handle")
    ended: list[RunHandle] = []
    errors: list[Exception] = []
    with anyio.fail_after(wait_limit(timeout)):
        async with anyio.create_task_group() as tasks:

            async def wait(handle: RunHandle) -> None:
                try:
                    await handle.result()
                except Exception as exc:  # noqa: BLE001 - raised outside of the group, which would wrap it
                    errors.append(exc)
                else:
                    ended.append(handle)
                tasks.cancel_scope.cancel()

            for handle in handles:
                tasks.start_soon(wait, handle)
    if not ended:
        raise errors[0]
    return ended[0]
