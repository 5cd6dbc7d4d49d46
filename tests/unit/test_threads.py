"""Worker threads: a call that is cancelled before it begins never begins."""

from __future__ import annotations

import threading

import anyio
import pytest

from spine_async._threads import AbandonedThreads, WorkerThreads, _Job, run_threads
from spine_async.errors import StepError

pytestmark = pytest.mark.anyio


def test_a_call_that_was_abandoned_before_it_began_does_not_begin() -> None:
    threads, called, of_run = WorkerThreads(1, 1), threading.Event(), AbandonedThreads()
    run_threads.set(of_run)
    job = _Job(threads._begun, threads._ended)
    threads._leave(job, "step")
    with pytest.raises(StepError):
        job.run(called.set, ())
    assert (called.is_set(), threads.abandoned, of_run.names) == (False, 0, [])


async def test_the_threads_of_a_run_are_known_until_they_end() -> None:
    threads, begun, gate = WorkerThreads(2, 2), threading.Event(), threading.Event()
    of_run, of_other = AbandonedThreads(), AbandonedThreads()

    def hold() -> None:
        begun.set()
        gate.wait(30)

    async def call() -> None:
        run_threads.set(of_run)
        await threads.call("step", hold)

    run_threads.set(of_other)
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        while not begun.is_set():  # noqa: ASYNC110 - set by a thread
            await anyio.sleep(0.005)
        assert of_run.names == [], "somebody waits for it"
        group.cancel_scope.cancel()
    assert (of_run.names, of_other.names) == (["step"], [])
    gate.set()
    await of_run.wait_ended()
    assert (of_run.names, threads.abandoned) == ([], 0)
