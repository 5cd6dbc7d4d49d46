"""A call that is cancelled at any await leaves no open transaction or connection, and did all of its work or none."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, Literal, TypeAlias

import anyio
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from spine_async._model.run_claim import Claim
from spine_async.ports import CommitOutcome
from spine_async.storage import SqlRunStore
from spine_async.testing.conformance.rows import change, committed, created, loaded, new_run, visit
from tests.storage.history import checked_out

Way: TypeAlias = Literal["native", "twice", "scope"]
_MOST_AWAITS = 300


@coroutine
def _interrupted(
    work: Coroutine[Any, Any, object], at: int, interrupt: Callable[[], object], times: int
) -> Generator[Any, Any, int]:
    """Run the work and cancel it at its n-th await, and again at the next; returns the number of awaits."""
    count, send, given = 0, work.send, None
    while True:
        try:
            awaited = send(given)
        except StopIteration:
            return count
        count += 1
        if at <= count < at + times:
            interrupt()
        try:
            given, send = (yield awaited), work.send
        except BaseException as exc:
            given, send = exc, work.throw


async def _cancelled_at(work: Coroutine[Any, Any, object], at: int, way: Way) -> bool:
    """Cancel the work at its n-th await; returns whether it has that many awaits."""
    counts: list[int] = []

    async def run() -> None:
        with anyio.CancelScope() as scope:
            task = asyncio.current_task()
            assert task is not None
            # From another task, while this one waits.
            cancel = scope.cancel if way == "scope" else task.cancel
            interrupt = partial(asyncio.get_running_loop().call_soon, cancel)
            counts.append(await _interrupted(work, at, interrupt, 2 if way == "twice" else 1))

    (outcome,) = await asyncio.gather(asyncio.create_task(run()), return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome
    return not counts or counts[0] >= at


@pytest.fixture
async def engine(empty_database_url: str) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(empty_database_url)
    yield made
    assert checked_out(made) == 0
    await made.dispose()
    gc.collect()  # what a cancelled driver left behind is reported when it is collected


@pytest.fixture
async def store(engine: AsyncEngine) -> AsyncIterator[SqlRunStore]:
    made = SqlRunStore(engine)
    yield made
    await made.close()


Asked: TypeAlias = Callable[[SqlRunStore, str], Awaitable[Coroutine[Any, Any, object]]]


async def _commit(store: SqlRunStore, run_id: str) -> Coroutine[Any, Any, object]:
    claim = await created(store, new_run(run_id))
    return store.commit([change(claim, [visit("fetch", 2)])])


async def _create(store: SqlRunStore, run_id: str) -> Coroutine[Any, Any, object]:
    return store.create([new_run(run_id)])


async def _claim(store: SqlRunStore, run_id: str) -> Coroutine[Any, Any, object]:
    await created(store, new_run(run_id))
    return store.claim(run_id, "worker-1", None, ttl=60)


async def _read(store: SqlRunStore, run_id: str) -> Coroutine[Any, Any, object]:
    await created(store, new_run(run_id))
    return store.load(run_id)


@pytest.mark.pairs
@pytest.mark.parametrize("way", ["native", "twice", "scope"])
@pytest.mark.parametrize("asked", [_commit, _create, _claim, _read])
@pytest.mark.parametrize("is_fresh", [False, True], ids=["open", "closed before"])
async def test_at_every_await(store: SqlRunStore, engine: AsyncEngine, asked: Asked, way: Way, is_fresh: bool) -> None:
    for at in range(1, _MOST_AWAITS):
        run_id = f"run-{at}"
        work = await asked(store, run_id)
        if is_fresh:
            await store.close()
            await engine.dispose()
        if not await _cancelled_at(work, at, way):
            break
        await _assert_sound(store, run_id)
    assert 1 < at < _MOST_AWAITS - 1
    await store.close()
    assert checked_out(engine) == 0


async def _assert_sound(store: SqlRunStore, run_id: str) -> None:
    """Check that the run can be claimed and continued, and has all rows of the cancelled call or none."""
    await store.create([new_run(run_id)])
    run, visits = await loaded(store, run_id), await store.visits(run_id)
    while (again := await loaded(store, run_id)).next_seq != run.next_seq:  # the thread reaches the commit only now
        run, visits = again, await store.visits(run_id)
    assert [row.seq for row in visits] == list(range(2, run.next_seq))
    with anyio.fail_after(5):  # a transaction left open would hold the row
        claim = await store.claim(run_id, "worker-1", None, ttl=60)
    assert isinstance(claim, Claim)
    await committed(store, change(claim, [visit("more", claim.next_seq)]))
    assert await store.commit([change(claim, [visit("other", claim.next_seq)])]) == [CommitOutcome.FENCED]
