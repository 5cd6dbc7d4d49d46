"""SQLite: the lock of another process delays calls for a limited time, and renewals try again while it lasts."""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from spine_async._model.run_claim import Renewal
from spine_async.errors import StoreUnavailableError
from spine_async.ports import CommitOutcome
from spine_async.storage.sql.store import SqlRunStore
from spine_async.testing.conformance.rows import change, created, new_run, visit


@contextmanager
def locked(file: Path) -> Iterator[sqlite3.Connection]:
    """A write transaction of somebody else."""
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()


@pytest.mark.allow_blocking
class TestLockedFile:
    async def test_a_call_ends_within_its_limit(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        store = SqlRunStore.from_url(f"sqlite:///{tmp_path / 'runs.db'}", timeout=2.4)
        claim = await created(store)
        caplog.set_level(logging.WARNING, "spine_async")
        with locked(tmp_path / "runs.db"):
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match=r"SQLite database .*runs\.db"):
                await store.commit([change(claim, [visit("fetch", 2)])])
            assert time.monotonic() - began < 10
        assert re.search(r"runs\.db has not answered for \d+\.\d s \(commit\)", caplog.text), caplog.text
        assert await store.commit([change(claim, [visit("fetch", 2)])]) == [CommitOutcome.COMMITTED]
        await store.close()

    async def test_a_renewal_is_no_slower_than_its_own_limit(self, tmp_path: Path) -> None:
        store = SqlRunStore.from_url(f"sqlite:///{tmp_path / 'runs.db'}", timeout=20)
        claim, other = await created(store), await created(store, new_run("run-2"))
        with locked(tmp_path / "runs.db") as connection:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.commit, [change(other, [visit("fetch", 2)])])
                await anyio.sleep(0.05)
                began = time.monotonic()
                with pytest.raises(StoreUnavailableError):
                    await store.renew([claim], 1.5)
                assert time.monotonic() - began < 5
                await anyio.to_thread.run_sync(connection.execute, "ROLLBACK")
                assert await store.renew([claim], 60) == [Renewal(is_held=True)]
        await store.close()

    async def test_commits_without_pause_do_not_starve_renewals(self, tmp_path: Path) -> None:
        store = SqlRunStore.from_url(f"sqlite:///{tmp_path / 'runs.db'}")
        claim, busy = await created(store), await created(store, new_run("run-2"))
        done = anyio.Event()

        async def commit() -> None:
            while not done.is_set():
                await store.commit([change(busy, [visit(f"step-{busy.next_seq}", busy.next_seq)])])
                busy.next_seq += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit)
            for _ in range(20):
                assert await store.renew([claim], 1.5) == [Renewal(is_held=True)]
            done.set()
        await store.close()
