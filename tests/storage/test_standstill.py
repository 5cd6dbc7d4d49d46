"""Time limits of a store do not count time in which the process stands still, as after SIGSTOP."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from spine_async.storage.sql.driver import time_limit
from spine_async.storage.sql.driver.awake_clock import AwakeClock
from spine_async.storage.sql.driver.time_limit import Call, TimeLimit
from spine_async.storage.sql.store import SqlRunStore
from spine_async.testing.conformance.rows import created, new_run

pytestmark = [pytest.mark.anyio, pytest.mark.allow_blocking]

LIMIT = 0.8
STANDSTILL = 1.0


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        monkeypatch.setattr("spine_async.storage.sql.driver.awake_clock.time.monotonic", lambda: self.seconds)


def test_the_clock_counts_little_of_a_gap_between_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        time_, clock = Clock(patch), AwakeClock()
        began = clock.now()
        time_.seconds += 5
        assert clock.now() == began + 5  # without beats it is the monotonic clock
        clock.beat()
        time_.seconds += 0.15
        assert clock.now() == pytest.approx(began + 5.15)
        time_.seconds += 20
        assert clock.now() == pytest.approx(began + 5.2)
        clock.beat()
        assert clock.now() == pytest.approx(began + 5.2)
        time_.seconds += 20
        clock.rest()
        time_.seconds += 1
        assert clock.now() == pytest.approx(began + 6.4)


def later(iterations: int, action: Callable[[], Any]) -> None:
    """Call `action` after so many iterations of the event loop."""
    loop = asyncio.get_running_loop()
    loop.call_soon(action if iterations == 0 else lambda: later(iterations - 1, action))


def stand_still() -> None:
    time.sleep(STANDSTILL)


async def test_a_wait_whose_time_passes_during_a_standstill_goes_on() -> None:
    lock, call = asyncio.Lock(), TimeLimit("db", LIMIT).call("commit")
    await lock.acquire()

    async def waits() -> None:
        async with call.within():
            await lock.acquire()

    waiting = asyncio.create_task(waits())
    await asyncio.sleep(0)
    stand_still()
    later(5, lock.release)
    await waiting


async def test_a_wait_that_lasts_too_long_ends() -> None:
    with pytest.raises(TimeoutError, match=r"no answer within 0\.4 s \(commit\)"):
        async with TimeLimit("db", LIMIT).call("commit").within():
            await asyncio.Event().wait()


async def test_an_attempt_is_not_aborted_for_a_standstill() -> None:
    answered, aborted = asyncio.Event(), list[object]()
    call = TimeLimit("db", LIMIT).call("commit")

    async def job(driver: object) -> str:
        stand_still()
        later(5, answered.set)
        await answered.wait()
        return "answer"

    assert await call.run(job, "driver", aborted.append) == "answer"
    assert aborted == []


async def test_an_error_after_a_standstill_is_retried() -> None:
    attempts = list[Call]()

    async def attempt(call: Call) -> str:
        attempts.append(call)
        if len(attempts) == 1:
            await asyncio.sleep(0)
            stand_still()
            raise ConnectionError
        return "answer"

    assert await TimeLimit("db", LIMIT).call("commit").retry(attempt, lambda exc: True) == "answer"
    assert len(attempts) == 2


async def test_a_call_that_fails_until_its_limit_ends() -> None:
    async def attempt(call: Call) -> str:
        raise ConnectionError

    with anyio.fail_after(20), pytest.raises(ConnectionError):
        await TimeLimit("db", LIMIT).call("commit").retry(attempt, lambda exc: True)


async def test_a_commit_during_a_standstill_is_no_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of another process ends with the standstill; the commit is tried again."""
    file = tmp_path / "runs.db"
    store = SqlRunStore(f"sqlite+aiosqlite:///{file}", timeout=LIMIT)
    await created(store, new_run("first"))
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    warned = asyncio.Event()
    monkeypatch.setattr(time_limit.Call, "warn_slow", lambda *_: warned.set())
    creating = asyncio.create_task(created(store, new_run("second")))
    for _ in range(20):
        await asyncio.sleep(0)
    stand_still()
    other.execute("ROLLBACK")
    other.close()
    await creating
    assert not warned.is_set()
    assert await store.load("second") is not None
    await store.close()
