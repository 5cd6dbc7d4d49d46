"""Runs for the fault tests, and the check that nothing was lost or stored twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from spine_async._model.run_claim import Claim
from spine_async.ports import RunStore
from spine_async.storage import SqlRunStore
from spine_async.testing.conformance.rows import change, committed, created, event, loaded, moved, new_run, visit


@asynccontextmanager
async def store_without_leaks(url: URL | str) -> AsyncIterator[SqlRunStore]:
    """A store on an engine of its own; checks at the end that the pool has all connections back."""
    engine = create_async_engine(url)
    store = SqlRunStore(engine)
    try:
        yield store
        await store.close()
        assert checked_out(engine) == 0
    finally:
        await store.close()
        await engine.dispose()


def checked_out(engine: AsyncEngine) -> int:
    """The number of connections that are still in use."""
    assert isinstance(engine.pool, AsyncAdaptedQueuePool)
    return engine.pool.checkedout()


async def begun(store: RunStore, run_id: str = "run-1") -> Claim:
    """Create a run with one step; after that, each SQL statement has been used once."""
    claim = await created(store, new_run(run_id))
    return await advanced(store, claim)


async def advanced(store: RunStore, claim: Claim) -> Claim:
    """Commit one further step and one event to the run."""
    number = claim.next_seq
    made = change(claim, [visit(f"step-{number}", number)], [event("noted", number + 1)])
    return moved(claim, await committed(store, made))


async def assert_whole(store: RunStore, claim: Claim, *, extra_events: int = 0) -> None:
    """Check that all acknowledged rows are stored once and numbered without gaps."""
    run = await loaded(store, claim.run_id)
    assert (run.epoch, run.next_seq) == (claim.epoch, claim.next_seq)
    events = await store.events(claim.run_id, 0, 10_000)
    assert [each.seq for each in events] == list(range(1, claim.next_seq))
    visits = await store.visits(claim.run_id)
    assert len({row.path for row in visits}) == len(visits) == (claim.next_seq - 2 - extra_events) // 2
