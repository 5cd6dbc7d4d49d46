"""Removes ended runs by a retention policy.

Theory of operation: the candidates are listed by status, the oldest first, so a pass reads the runs that it removes,
and the few runs that were created long ago and ended recently. They are deleted in small batches, each by a transaction
of its own, with a pause after each. The statement that deletes them checks again that they and their parents have
ended. So passes of several processes, and resumes meanwhile, do no harm.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import anyio

from spine_async._engine.runtime.plain_reads import workflow_names
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.background import BackgroundTask
from spine_async._engine.tasks import run_shielded
from spine_async._model.retention import RetentionPolicy
from spine_async._model.run_filter import RunCursor, RunFilter
from spine_async._model.run_row import StoredRun
from spine_async.errors import StoreError
from spine_async.ports import DeleteIf

_PAGE = 200  # runs of one listing
_MOST_RUNS = 100  # of one batch
_MOST_ROWS = 2000  # of one batch; a run with more rows is a batch of its own
_LONGEST_PAUSE = 1.0  # seconds

_log = logging.getLogger("spine_async")


async def prune(runtime: Runtime, policy: RetentionPolicy) -> int:
    """Remove the runs that the policy does not keep; returns how many were removed.

    Raises:
        StoreError: The store cannot be reached; some of the runs may have been removed.
    """
    removed = 0
    async for chosen in _selections(runtime, policy):
        async for page in _pages(runtime, chosen):
            for batch in _batches(page):
                begun_mono = runtime.clock.monotonic()
                removed += len(await run_shielded(runtime.store.delete(batch, DeleteIf.UNUSED), "spine_async prune"))
                # Half of the time belongs to others who wait for the same locks.
                await anyio.sleep(min(_LONGEST_PAUSE, runtime.clock.monotonic() - begun_mono))
    return removed


async def _selections(runtime: Runtime, policy: RetentionPolicy) -> AsyncIterator[RunFilter]:
    """The filters that together select the runs to remove."""
    now = runtime.clock.now()
    aged = [_ended_before(RunFilter(status=status), now - age) for status, age in policy.ages.items()]
    if policy.keep_last is None or not aged:
        for chosen in aged:
            yield chosen
        return
    for name in await run_shielded(workflow_names(runtime.store), "spine_async prune"):
        first_kept = await _first_kept(runtime, name, policy.keep_last)
        if first_kept is None:
            continue
        for chosen in aged:
            until = min(chosen.created_until or first_kept.created_at, first_kept.created_at)
            yield replace(chosen, workflow_name=name, created_until=until)


def _ended_before(chosen: RunFilter, moment: datetime) -> RunFilter:
    """The filter for runs that ended before a moment. They were created before it too, for which there is an index."""
    return replace(
        chosen, ended_until=moment, created_until=moment, is_oldest_first=True, with_documents=False, limit=_PAGE
    )


async def _first_kept(runtime: Runtime, workflow_name: str, keep_last: int) -> StoredRun | None:
    """The oldest of the newest ended runs of a workflow, or None if it has fewer of them."""
    chosen = RunFilter(
        workflow_name=workflow_name, is_ended=True, limit=keep_last, with_documents=False, skips_unreadable=True
    )
    newest = await run_shielded(runtime.store.runs(chosen), "spine_async prune")
    return newest[-1] if len(newest) == keep_last else None


async def _pages(runtime: Runtime, chosen: RunFilter) -> AsyncIterator[Sequence[StoredRun]]:
    chosen = replace(chosen, skips_unreadable=True)
    while page := await run_shielded(runtime.store.runs(chosen), "spine_async prune"):
        yield page
        chosen = replace(chosen, cursor=RunCursor(page[-1].created_at, page[-1].key))


def _batches(page: Sequence[StoredRun]) -> Iterator[list[str]]:
    """The ids of the runs in groups that have few rows each."""
    batch, rows = list[str](), 0
    for run in page:
        if batch and (len(batch) >= _MOST_RUNS or rows + run.next_seq > _MOST_ROWS):
            yield batch
            batch, rows = [], 0
        batch.append(run.run_id)
        rows += run.next_seq
    if batch:
        yield batch


@dataclass(slots=True)
class Retention:
    """Applies the policy of the config in the background of a working runner."""

    runtime: Runtime
    _task: BackgroundTask = field(default_factory=lambda: BackgroundTask("spine_async retention"))

    def start(self) -> None:
        """Begin, unless it has begun or there is no policy."""
        policy = self.runtime.config.retention
        if policy is not None and policy.ages and not self._task.is_running:
            self._task.start(self._work(policy))

    async def end_with(self, rest: Awaitable[None]) -> None:
        """Begin no further batch, await `rest`, and wait for the batch that is being deleted."""
        await self._task.end_with(rest)

    async def _work(self, policy: RetentionPolicy) -> None:
        """One pass after each interval. The intervals are random, so that processes do not work at the same time."""
        interval = self.runtime.config.retention_interval
        await anyio.sleep(self.runtime.random() * interval)
        while True:
            try:
                removed = await prune(self.runtime, policy)
            except StoreError as exc:
                _log.warning("ended runs were not removed; it will be retried: %s", exc)
            except Exception:  # noqa: BLE001 - the retention must not end with one error
                _log.exception("ended runs were not removed; it will be retried")
            else:
                _log.log(logging.INFO if removed else logging.DEBUG, "retention removed %d ended runs", removed)
            await anyio.sleep((0.5 + self.runtime.random()) * interval)
