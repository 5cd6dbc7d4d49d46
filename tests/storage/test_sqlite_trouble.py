"""SQLite: a file that another process locks for a while only delays calls."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spine_async._model.run_claim import Busy, Claim
from spine_async.errors import StoreUnavailableError
from spine_async.storage import boot_clock
from spine_async.storage.sql.driver import retry
from spine_async.storage.sql.sqlite import jobs as sqlite_jobs
from spine_async.testing.conformance.rows import created, loaded, new_run, taken_over
from tests.storage.history import advanced, assert_whole, begun, store_without_leaks

_LOCKER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline() if sys.argv[2] == "-" else time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@contextmanager
def _locked(path: Path, seconds: float | None) -> Iterator[None]:
    """Lock the file in another process, for some seconds or until the end of the block."""
    duration = "-" if seconds is None else str(seconds)
    command = [sys.executable, "-c", _LOCKER, str(path), duration]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


class TestLockedFiles:
    async def test_a_commit_waits_until_the_file_is_free(self, path: Path, url: str) -> None:
        async with store_without_leaks(url) as store:
            claim = await begun(store)
            with _locked(path, 0.2):
                claim = await advanced(store, claim)
            await assert_whole(store, claim)

    async def test_every_write_is_retried_if_the_database_does_not_wait(
        self, path: Path, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_jobs, "BUSY_SECONDS", 0.01)
        monkeypatch.setattr(retry, "DELAYS", (0.02,) * 200)
        async with store_without_leaks(url) as store:
            claim = await begun(store)
            with _locked(path, 0.2):
                claim = await advanced(store, claim)
            with _locked(path, 0.2):
                await created(store, new_run("other"))
            with _locked(path, 0.2):
                again = await store.claim("run-1", "worker-1", None, ttl=60)
            assert isinstance(again, Claim)
            with _locked(path, 0.2):
                assert [each.is_held for each in await store.renew([again], 60)] == [True]
            with _locked(path, 0.2):
                assert await store.request_stop("run-1", "user") is True
            assert again.epoch == 2
            await assert_whole(store, again)

    async def test_a_file_that_stays_locked_is_said_to_be_unavailable(
        self, path: Path, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_jobs, "BUSY_SECONDS", 0.01)
        monkeypatch.setattr(retry, "DELAYS", (0.01, 0.02))
        async with store_without_leaks(url) as store:
            claim = await begun(store)
            with _locked(path, None), pytest.raises(StoreUnavailableError, match="database is locked"):
                await advanced(store, claim)
            await assert_whole(store, await advanced(store, claim))
        assert _is_free(path)


class TestBootClock:
    async def test_another_boot_ends_every_lease(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async with store_without_leaks(url) as store:
            await created(store, new_run(ttl=600))
            assert isinstance(await store.claim("run-1", "worker-2", None, ttl=60), Busy)
            monkeypatch.setattr(boot_clock, "_boot_id", lambda: "another boot")
            assert (await loaded(store)).is_leased is False
            assert isinstance(await store.claim("run-1", "worker-2", None, ttl=60), Claim)
            assert (await loaded(store)).is_leased is True

    async def test_leases_hold_where_boots_have_no_names(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(boot_clock, "_BOOT_ID", tmp_path / "nothing")
        boot_clock._boot_id.cache_clear()
        try:
            async with store_without_leaks(url) as store:
                await created(store, new_run(ttl=600))
                assert isinstance(await store.claim("run-1", "worker-2", None, ttl=60), Busy)
                assert isinstance(await taken_over(store), Claim)
        finally:
            boot_clock._boot_id.cache_clear()

    async def test_two_stores_of_one_file_count_by_the_same_clock(self, url: str) -> None:
        async with store_without_leaks(url) as one, store_without_leaks(url) as other:
            claim = await begun(one)
            assert isinstance(await other.claim("run-1", "worker-2", None, ttl=60), Busy)
            await one.renew([claim], 0.0)
            assert isinstance(await other.claim("run-1", "worker-2", None, ttl=60), Claim)


def _is_free(path: Path) -> bool:
    """Whether nobody has a write transaction open."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True
