"""`ensure_suspends`: the result of a coroutine arrives in a later turn of the event loop."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from spine_async._engine.tasks import ensure_suspends

pytestmark = pytest.mark.anyio


async def turns_of(waits: int) -> int:
    """The number of turns of the loop until work that waits this often has its result."""
    turns, loop = 0, asyncio.get_running_loop()

    def count() -> None:
        nonlocal turns
        turns += 1
        counting[0] = loop.call_soon(count)

    async def work() -> str:
        for _ in range(waits):
            await asyncio.sleep(0)
        return "done"

    counting = [loop.call_soon(count)]
    try:
        assert await ensure_suspends(work()) == "done"
    finally:
        counting[0].cancel()
    return turns


@pytest.mark.parametrize(("waits", "turns"), [(0, 1), (1, 1), (3, 3)])
async def test_a_turn_of_the_loop_is_added_only_if_there_was_none(waits: int, turns: int) -> None:
    assert await turns_of(waits) == turns


@pytest.mark.parametrize("waits", [0, 2])
async def test_errors_are_raised_unchanged(waits: int) -> None:
    async def work() -> None:
        for _ in range(waits):
            await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await ensure_suspends(work())


async def test_a_cancellation_reaches_the_work() -> None:
    events: list[str] = []

    async def work() -> str:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            events.append("cancelled")
            await asyncio.sleep(0)  # after its cancellation it may still wait and return a result
            return "answer"
        return "never"

    async def waits() -> None:
        events.append(await ensure_suspends(work()))

    task = asyncio.create_task(waits())
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    task.cancel()
    await task
    assert events == ["cancelled", "answer"]
