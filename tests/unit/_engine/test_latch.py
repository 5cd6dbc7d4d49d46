"""A one-shot latch that many tasks await."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from spine_async._engine.tasks import Latch

pytestmark = pytest.mark.anyio


async def waits(latch: Latch, told: list[str], name: str) -> None:
    try:
        await latch.wait()
        told.append(f"{name} went on")
    except asyncio.CancelledError:
        told.append(f"{name} was cancelled")
        raise
    except ValueError as exc:
        told.append(f"{name} was told: {exc}")


async def turns() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_all_who_wait_go_on_at_once_and_who_comes_later_too() -> None:
    latch, told = Latch(), list[str]()
    async with anyio.create_task_group() as tasks:
        for name in "ab":
            tasks.start_soon(waits, latch, told, name)
        await turns()
        assert told == []
        latch.set()
    await waits(latch, told, "c")
    assert told == ["a went on", "b went on", "c went on"]


async def test_all_are_told_what_broke_it() -> None:
    latch, told = Latch(), list[str]()
    async with anyio.create_task_group() as tasks:
        for name in "ab":
            tasks.start_soon(waits, latch, told, name)
        await turns()
        latch.set(ValueError("no"))
        latch.set()
    assert told == ["a was told: no", "b was told: no"]


@pytest.mark.parametrize("times", [1, 3])
async def test_a_native_cancellation_waits_for_the_end_and_harms_no_other(times: int) -> None:
    latch, told = Latch(), list[str]()
    cancelled = asyncio.create_task(waits(latch, told, "a"))
    other = asyncio.create_task(waits(latch, told, "b"))
    await turns()
    for _ in range(times):
        cancelled.cancel()
        await turns()
    assert told == []
    latch.set()
    await asyncio.wait([cancelled, other])
    assert sorted(told) == ["a was cancelled", "b went on"]
    assert cancelled.cancelled()


async def test_a_scope_that_is_cancelled_is_left_only_at_the_end() -> None:
    latch, told = Latch(), list[str]()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waits, latch, told, "a")
            await turns()
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await turns()
                assert told == []
                latch.set()
    assert told == ["a was cancelled"]


async def test_attending_swallows_what_comes() -> None:
    latch = Latch()
    task = asyncio.create_task(latch.wait_shielded())
    await turns()
    task.cancel()
    await turns()
    assert not task.done()
    latch.set()
    await task
