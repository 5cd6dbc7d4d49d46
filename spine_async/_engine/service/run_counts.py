"""Counts runs for metrics, which another thread asks for.

The store is read only when somebody asks, in the event loop of the runner, and by one call at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.tasks import Task, call_in_loop, is_in_loop, mark_retrieved, run_shielded, running_loop, spawn
from spine_async._model.due import Backlog
from spine_async.errors import SpineError

MOST = 10_000
"""Number at which counting ends."""


class RunCounts:
    """Counts the runs that this runner executes, and those of its store that no process holds.

    Args:
        runtime: What all runs share.
        active_runs: The runs that this runner executes.
    """

    def __init__(self, runtime: Runtime, active_runs: ActiveRuns) -> None:
        self._runtime = runtime
        self._active_runs = active_runs
        self._last: Backlog | None = None
        self._reading: Task[None] | None = None
        self._waiters: list[Callable[[], None]] = []

    @property
    def held(self) -> int:
        """Number of runs that this runner executes; may be read in any thread."""
        return self._active_runs.held

    @property
    def location(self) -> str | None:
        """Where the runs are stored, so that a place is counted once; None if the runner is not in use."""
        place = self._active_runs.place
        return place[1] if place is not None else None

    def backlog(self, seconds: float) -> Backlog | None:
        """The runs that no process holds; may be called in any thread.

        Args:
            seconds: Longest time to wait for the store. In the thread of an event loop, which must not wait, the answer
                is that of the last call, and the store is read for the next one.

        Returns:
            None if the store did not answer, or if the runner is not in use.
        """
        place = self._active_runs.place
        if place is None:
            return None
        answered = threading.Event()
        if not call_in_loop(place[0], self._begin, answered.set):
            return None
        if not is_in_loop() and not answered.wait(seconds):
            return None
        return self._last

    def _begin(self, on_answer: Callable[[], None]) -> None:
        """Read the store, unless that is under way; `on_answer` is called afterwards."""
        self._waiters.append(on_answer)
        reading = self._reading
        if reading is None or reading.done() or reading.get_loop() is not running_loop():
            self._reading = spawn(self._read(), "spine_async backlog")
            self._reading.add_done_callback(mark_retrieved)

    async def _read(self) -> None:
        found = None
        try:
            if self._active_runs.place is not None:  # else it is no longer in use, and would be opened for this
                async with self._active_runs.session():
                    found = await run_shielded(self._runtime.due_runs.backlog(MOST), "spine_async backlog")
        except SpineError:
            pass
        finally:
            self._last = found
            waiters, self._waiters = self._waiters, []
            for on_answer in waiters:
                on_answer()
