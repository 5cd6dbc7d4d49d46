"""The part of a runner that shows what is under way: queues, workers, and waits for signals."""

from __future__ import annotations

from collections.abc import Collection

from spine_async._arguments import check_limit, check_type
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.service.overview import queue_records, signal_waits, waits_of, worker_records
from spine_async._engine.service.query import run_record
from spine_async._model.naming import check_run_id
from spine_async._model.overview import QueueRecord, SignalWait, SignalWaits, WorkerRecord
from spine_async._model.run_filter import RunCursor


class WorkOverview:
    """Shows what a store has under way."""

    _runtime: Runtime
    _active_runs: ActiveRuns
    _queue_names: Collection[str]

    async def queues(self) -> list[QueueRecord]:
        """The queues of the store with the numbers of their runs, ordered by name; at last the runs without a queue.

        These are the queues that have runs, that a working runner has listed, or that this runner works on. Counting
        ends at 10,000 runs of each kind, so the call is cheap however many runs are stored. A store without queues has
        only those of this runner, without runs.

        Raises:
            StoreError: The store cannot be read.
        """
        async with self._active_runs.session():
            limits = self._runtime.queue_limits
            return await queue_records(self._runtime, {name: limits.get(name) for name in self._queue_names})

    async def workers(self) -> list[WorkerRecord]:
        """The runners that hold runs of the store, in this process or elsewhere, ordered by host and process.

        A runner that executes no run is not among them, because nothing of it is stored.

        Raises:
            StoreError: The store cannot be read.
        """
        async with self._active_runs.session():
            return await worker_records(self._runtime)

    async def signal_waits(self, *, limit: int = 100, cursor: str | None = None) -> SignalWaits:
        """Visits that wait for a signal, those of the newest runs first.

        Only runs with the status `waiting` are looked at. A wait is found by the event that announces it, so runs
        without events (`emit_events=False`) have none here.

        Args:
            limit: After how many waits a page ends, from 1 to 1,000. A page may have more, because the waits of one
                run are not divided; and fewer, because it ends after about a thousand waiting runs.
            cursor: `cursor` of the page before.

        Raises:
            ValueError: The limit or the cursor is invalid.
            StoreError: The store cannot be read.
        """
        check_limit(limit)
        check_type("cursor", cursor, str, "the cursor of a page")
        after = RunCursor.parse(cursor) if cursor is not None else None
        async with self._active_runs.session():
            return await signal_waits(self._runtime, limit, after)

    async def signal_waits_of(self, run_id: str) -> list[SignalWait]:
        """The visits of one run that wait for a signal, those inside of maps and branches included.

        Raises:
            RunNotFoundError: The run is not stored.
            StoreError: The store cannot be read.
        """
        async with self._active_runs.session():
            return await waits_of(
                self._runtime, [await run_record(self._runtime, check_run_id(run_id), with_outputs=False)]
            )
