"""A one-shot latch that many tasks await."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from spine_async._engine.tasks import Latch

pytestmark = pytest.mark.anyio


async def waits(latch: Latch, events: list[str], name: str) -> None:
    try:
        await latch.wait()
        events.append(f"{name} went on")
    except asyncio.CancelledError:
        events.append(f"{name} was cancelled")
        raise
    except ValueError as exc:
        events.append(f"{name} got the error: {exc}")


async def turns() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_all_waiters_are_resumed_and_later_ones_do_not_wait() -> None:
    latch, events = Latch(), list[str]()
    async with anyio.create_task_group() as tasks:
        for name in "ab":
            tasks.start_soon(waits, latch, events, name)
        await turns()
        assert events == []
        latch.set()
    await waits(latch, events, "c")
    assert events == ["a went on", "b went on", "c went on"]


async def test_all_waiters_get_the_error() -> None:
    latch, events = Latch(), list[str]()
    async with anyio.create_task_group() as tasks:
        for name in "ab":
            tasks.start_soon(waits, latch, events, name)
        await turns()
        latch.set(ValueError("no"))
        latch.set()
    assert events == ["a got the error: no", "b got the error: no"]


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_waiter_waits_until_the_latch_is_set_and_affects_no_other(times: int) -> None:
    latch, events = Latch(), list[str]()
    cancelled = asyncio.create_task(waits(latch, events, "a"))
    other = asyncio.create_task(waits(latch, events, "b"))
    await turns()
    for _ in range(times):
        cancelled.cancel()
        await turns()
    assert events == []
    latch.set()
    await asyncio.wait([cancelled, other])
    assert sorted(events) == ["a was cancelled", "b went on"]
    assert cancelled.cancelled()


async def test_a_waiter_in_a_cancelled_scope_waits_until_the_latch_is_set() -> None:
    latch, events = Latch(), list[str]()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waits, latch, events, "a")
            await turns()
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await turns()
                assert events == []
                latch.set()
    assert events == ["a was cancelled"]


async def test_a_shielded_wait_swallows_cancellations() -> None:
    latch = Latch()
    task = asyncio.create_task(latch.wait_shielded())
    await turns()
    task.cancel()
    await turns()
    assert not task.done()
    latch.set()
    await task


@pytest.mark.parametrize("error", [None, ValueError("no")])
async def test_a_chained_latch_is_set_in_the_same_way(error: ValueError | None) -> None:
    first, second, events = Latch(), Latch(), list[str]()
    first.chain(second)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waits, first, events, "a")
        tasks.start_soon(waits, second, events, "b")
        await turns()
        assert events == []
        first.set(error)
    assert second.is_set
    outcome = "went on" if error is None else "got the error: no"
    assert sorted(events) == [f"a {outcome}", f"b {outcome}"]
