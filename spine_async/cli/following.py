"""Follows a run, and executes one while it is shown."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

import anyio

from spine_async.cli.exit_code import ExitCode
from spine_async.cli.interrupts import on_interrupt
from spine_async.cli.run_view import RunView
from spine_async.errors import RunNotFoundError, SpineError
from spine_async.runner import WorkflowRunner

_TICK = 0.1  # seconds
_LOOK_EVERY = 0.02  # seconds; while a run is not stored yet, or has not been continued yet


@dataclass(slots=True)
class Followed:
    """How the following of a run ended.

    Attributes:
        is_interrupted: Whether Ctrl-C or SIGTERM ended it.
        error: What was raised meanwhile, or None.
    """

    is_interrupted: bool = False
    error: Exception | None = None


async def follow(runner: WorkflowRunner, run_id: str, view: RunView, after: int = 0) -> Followed:
    """Show the events of a run until it has ended, or until Ctrl-C.

    Raises:
        RunNotFoundError: The run is not stored.
        StoreError: The store cannot be read.
    """
    reader = _Reader(runner, run_id, view, after)
    return await _interruptible(view, lambda: reader.read(follow=True))


async def follow_call(
    runner: WorkflowRunner, run_id: str, view: RunView, call: Callable[[], Awaitable[object]], after: int = 0
) -> Followed:
    """Show a run while a call executes it. Ctrl-C cancels the call; a second Ctrl-C ends the process at once.

    Args:
        runner: The runner.
        run_id: The run that the call executes.
        view: Shows the run.
        call: Executes the run.
        after: Only events with a greater number are shown.

    Raises:
        SpineError: As the call.
    """
    reader = _Reader(runner, run_id, view, after)

    async def work() -> None:
        error: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.keep_reading)
            try:
                await call()
            except Exception as exc:  # noqa: BLE001 - raised outside of the group, which would wrap it
                error = exc
            tasks.cancel_scope.cancel()
        if error is not None:
            raise error
        with suppress(RunNotFoundError):  # a dry run, which is not stored
            await reader.read(follow=False)

    return await _interruptible(view, work)


async def _interruptible(view: RunView, work: Callable[[], Awaitable[None]]) -> Followed:
    followed, scope = Followed(), anyio.CancelScope()

    def react(count: int) -> None:
        followed.is_interrupted = True
        if count > 1:
            view.close()
            os._exit(ExitCode.INTERRUPTED)
        scope.cancel()

    with view:
        async with on_interrupt(react):
            with scope:
                followed.error = await _with_ticks(view, work)
    if followed.error is not None and not followed.is_interrupted:
        raise followed.error
    return followed


async def _with_ticks(view: RunView, work: Callable[[], Awaitable[None]]) -> Exception | None:
    """Do the work while the view is drawn anew; returns its error, which a task group would wrap."""
    error: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_tick, view)
        try:
            await work()
        except Exception as exc:  # noqa: BLE001 - raised by the caller
            error = exc
        tasks.cancel_scope.cancel()
    return error


async def _tick(view: RunView) -> None:
    while True:
        view.tick()
        await anyio.sleep(_TICK)


class _Reader:
    """Reads the events of one run, each once."""

    def __init__(self, runner: WorkflowRunner, run_id: str, view: RunView, after: int) -> None:
        self._runner = runner
        self._run_id = run_id
        self._view = view
        self._last = after

    async def read(self, *, follow: bool) -> None:
        async with aclosing(self._runner.events(self._run_id, self._last, follow)) as events:
            async for event in events:
                self._last = event.seq
                self._view.add(event)

    async def keep_reading(self) -> None:
        """Read until cancelled. The run may not be stored yet, or an earlier end of it may be stored."""
        while True:
            with suppress(SpineError):  # the call that executes the run reports what is wrong
                await self.read(follow=True)
            await anyio.sleep(_LOOK_EVERY)
