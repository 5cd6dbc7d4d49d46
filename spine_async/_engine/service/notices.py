"""Reads the stop requests for active runs, and the signals that their steps wait for."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import anyio

from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.run import Run
from spine_async._engine.tasks import Task, end_task, spawn, wait_any
from spine_async._model.due import Notice
from spine_async._model.stop_request import StopRequest
from spine_async.errors import StoreError

_END_WITHIN = 0.2  # seconds

_log = logging.getLogger("spine_async")


class NoticeReader:
    """Reads the notices of all active runs in one call of the store.

    Args:
        runtime: What all runs share.
        runs: The active runs by id; changes while it reads.
    """

    def __init__(self, runtime: Runtime, runs: Mapping[str, Run]) -> None:
        self._runtime = runtime
        self._runs = runs
        self._read_mono = runtime.clock.monotonic()
        self._has_changed = False
        self._reading: Task[None] | None = None

    def check(self, now_mono: float, *, has_changed: bool) -> None:
        """Start to read if the store has changed or `poll_interval` is over; never waits for the store."""
        is_reading = self._reading is not None and not self._reading.done()
        self._has_changed = self._has_changed or has_changed  # also while a read is under way, which may miss it
        is_due = self._has_changed or now_mono - self._read_mono >= self._runtime.config.poll_interval
        if is_due and not is_reading and not self._runtime.is_ephemeral:
            self._has_changed, self._read_mono = False, now_mono
            self._reading = spawn(self._read(), "spine_async notices")

    async def end(self) -> None:
        """End the call that is under way."""
        if self._reading is not None:
            with anyio.move_on_after(_END_WITHIN):  # a cancelled call costs its connection
                await wait_any(self._reading)
            await end_task(self._reading)

    async def _read(self) -> None:
        runs = {run_id: run for run_id, run in self._runs.items() if run.pending.end is None}
        claims = [run.pending.claim for run in runs.values()]
        try:
            notices = await self._runtime.due_runs.notices(claims) if claims else []
        except StoreError as exc:
            _log.debug("notices of runs could not be read; it will be retried: %s", exc)
            return
        finally:
            if self._has_changed:
                self._runtime.changes.notify(Change.NOTICE)  # the watcher looks again once this has ended
        for notice in notices:
            self._apply(runs[notice.run_id], notice)

    def _apply(self, run: Run, notice: Notice) -> None:
        if self._runs.get(run.run_id) is not run or run.pending.end is not None:
            return  # it is not executed any more, or again: by a later claim, which has notices of its own
        if notice.stop_reason is not None:
            run.cancellation.stop(StopRequest.read(notice.stop_reason), run.clock.monotonic())
        run.mailbox.deliver(notice.messages)
