"""Runs that are worked on while things go wrong, and the look at whether anything was lost or doubled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from spine_async._model.record import Claim
from spine_async.ports import RunStore
from spine_async.storage import SqlRunStore
from spine_async.testing.conformance.rows import change, committed, created, event, loaded, moved, new_run, visit


@asynccontextmanager
async def store_without_leaks(url: URL | str) -> AsyncIterator[SqlRunStore]:
    """A store on an engine of its own, whose pool must have everything back at the end."""
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
    """Connections that somebody still holds."""
    assert isinstance(engine.pool, AsyncAdaptedQueuePool)
    return engine.pool.checkedout()


async def begun(store: RunStore, run_id: str = "run-1") -> Claim:
    """A run with one step; the database's statements have been used once then."""
    claim = await created(store, new_run(run_id))
    return await advanced(store, claim)


async def advanced(store: RunStore, claim: Claim) -> Claim:
    """The run with one step and one event more, committed."""
    number = claim.next_seq
    made = change(claim, [visit(f"step-{number}", number)], [event("noted", number + 1)])
    return moved(claim, await committed(store, made))


async def assert_whole(store: RunStore, claim: Claim, *, extra_events: int = 0) -> None:
    """Everything that was acknowledged is stored, once, and numbered without gaps."""
    run = await loaded(store, claim.run_id)
    assert (run.epoch, run.next_seq) == (claim.epoch, claim.next_seq)
    events = await store.events(claim.run_id, 0, 10_000)
    assert [each.seq for each in events] == list(range(1, claim.next_seq))
    visits = await store.visits(claim.run_id)
    assert len({row.path for row in visits}) == len(visits) == (claim.next_seq - 2 - extra_events) // 2
