"""Waits for a run that was left behind: one of its steps or threads did not end although it was cancelled.

The runner may have been left meanwhile. As long as its event loop runs, its store stays open and the watcher renews the
lease, so that nobody executes the step a second time while the first execution may still be running.
"""

from __future__ import annotations

import logging

from spine_async._engine.run.release import begin_release
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.run import Run
from spine_async._engine.tasks import CANCELLATION, wait_any
from spine_async._model.run_change import Release
from spine_async._model.run_row import DueTime

_log = logging.getLogger("spine_async")


async def wait_released(runtime: Runtime, run: Run) -> None:
    """Wait until the task of the run has ended and the run is released.

    Usually the task releases the run, or records its end. If that failed, the run is released here.

    Cancellation:
        The run keeps its owner. It can be claimed when the process is gone, or when the lease has ended.
    """
    task = run.left_task
    if task is None:
        return
    _log.warning("run %s was left behind and is still running; its lease is renewed until that ends", run.run_id)
    try:
        await wait_any(task)
        if task.cancelled() or task.exception() is not None:
            await run.threads.wait_ended()
            release, _ = begin_release(runtime, run.pending.claim, Release(due=DueTime(run.clock.now(), 0.0)))
            await wait_any(release)
    except CANCELLATION:
        _log.warning("run %s is still running while the event loop ends; it keeps its owner", run.run_id)
        raise
    _log.info("run %s, which was left behind, has ended here", run.run_id)
