from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta

import anyio
import anyio.to_thread
import pytest

from spine_async.ports import Clock
from spine_async.testing import VirtualClock, VirtualTimeLoop, run_virtual
from spine_async.testing.virtual_clock import VIRTUAL_START


def test_a_day_of_sleep_takes_no_time() -> None:
    async def sleeper() -> float:
        await anyio.sleep(86_400)
        return anyio.current_time()

    before = time.monotonic()
    assert run_virtual(sleeper) == 86_400.0
    assert time.monotonic() - before < 5


def test_sleepers_wake_in_order_at_their_moments() -> None:
    async def main() -> list[tuple[float, str]]:
        woken: list[tuple[float, str]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await anyio.sleep(seconds)
            woken.append((anyio.current_time(), name))

        async with anyio.create_task_group() as tasks:
            for name, seconds in (("late", 60.0), ("soon", 0.5), ("later", 3600.0)):
                tasks.start_soon(sleeper, name, seconds)
        return woken

    assert run_virtual(main) == [(0.5, "soon"), (60.0, "late"), (3600.0, "later")]


def test_timeouts_are_kept() -> None:
    async def main() -> float:
        with anyio.move_on_after(30) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        return anyio.current_time()

    assert run_virtual(main) == 30.0


def test_the_clock_tells_the_loops_time() -> None:
    async def main() -> None:
        clock: Clock = VirtualClock()
        assert (clock.now(), clock.monotonic()) == (VIRTUAL_START, 0.0)
        await anyio.sleep(90)
        assert (clock.now(), clock.monotonic()) == (VIRTUAL_START + timedelta(seconds=90), 90.0)

    run_virtual(main)


def test_time_stands_still_while_a_worker_thread_is_at_work() -> None:
    async def main() -> float:
        with anyio.fail_after(1):
            await anyio.to_thread.run_sync(threading.Event().wait, 0.05)
        return anyio.current_time()

    assert run_virtual(main) == 0.0


def test_time_passes_a_thread_that_is_said_to_hang() -> None:
    release = threading.Event()

    async def main() -> float:
        with anyio.move_on_after(20):
            await anyio.to_thread.run_sync(release.wait, abandon_on_cancel=True)
        release.set()
        return anyio.current_time()

    assert run_virtual(main, is_busy=lambda: False) == 20.0


def test_a_deadlock_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spine_async.testing.virtual_clock._LONGEST_IDLE", 0.01)
    loop = VirtualTimeLoop()
    waiting = loop.create_task(asyncio.sleep(0))

    async def main() -> None:
        await waiting
        await asyncio.Event().wait()

    task = loop.create_task(main())
    with pytest.raises(RuntimeError, match="every task waits"):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
