"""SQLite's write-ahead log stays small, also while transactions that read always overlap."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from spine_async.storage import SqlRunStore
from spine_async.storage.sql.sqlite import log_limit
from spine_async.testing.conformance.rows import change, committed, created, moved, visit
from tests.storage.plain_sql import file_of

pytestmark = pytest.mark.anyio

LIMIT = 400_000
COMMITS = 150
OUTPUT = f'"{"x" * 20_000}"'


@pytest.fixture
async def store(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> SqlRunStore:
    monkeypatch.setattr(log_limit, "LIMIT", LIMIT)
    return SqlRunStore.from_url(sqlite_url, durability="process")


async def write(store: SqlRunStore, log: Path) -> int:
    """Commit about 4 MB; returns the largest size of the log."""
    claim, largest = await created(store), 0
    for number in range(COMMITS):
        made = change(claim, [visit(f"s{number}", claim.next_seq, output=OUTPUT)])
        await committed(store, made)
        claim = moved(claim, made)
        largest = max(largest, log.stat().st_size)
    return largest


class Readers:
    """Two connections that read in turn, so that at each moment one of them is in a transaction."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(2)]
        self._turn = [threading.Event(), threading.Event()]
        self.transactions = 0

    def _read(self, number: int) -> None:
        with closing(sqlite3.connect(self._file, isolation_level=None, timeout=30)) as connection:
            while not self._stopped.is_set():
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM core_workflow_steps").fetchone()
                self._turn[1 - number].set()  # the other one may end its transaction now
                self._turn[number].wait(timeout=0.02)
                self._turn[number].clear()
                connection.execute("COMMIT")
                self.transactions += 1

    @contextmanager
    def reading(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in self._threads:
                thread.join()


async def test_readers_that_overlap_do_not_let_it_grow(
    store: SqlRunStore, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_limit, "_PATIENCE_MS", 10_000)  # on a busy host a reader may take longer than usual
    file = file_of(sqlite_url)
    await store.load("first")
    await created(store)
    await store.delete(["run-1"])
    readers = Readers(file)
    with readers.reading():
        largest = await write(store, Path(f"{file}-wal"))
    assert readers.transactions > 10
    assert LIMIT / 4 < largest < 3 * LIMIT
    await store.close()


async def test_a_long_reader_holds_up_few_commits(
    store: SqlRunStore, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, truncate = [], log_limit._truncate

    def noted(connection: sqlite3.Connection) -> object:
        attempts.append(truncate(connection))
        return attempts[-1]

    monkeypatch.setattr(log_limit, "_truncate", noted)
    file = file_of(sqlite_url)
    await created(store)
    await store.delete(["run-1"])
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM core_workflow_steps").fetchone()
        largest = await write(store, Path(f"{file}-wal"))
        assert largest > 5 * LIMIT
        assert 2 <= len(attempts) <= 5, "each attempt at twice the size of the one before"
        assert all(attempts)
        reader.execute("COMMIT")
    await store.delete(["run-1"])
    assert await write(store, Path(f"{file}-wal")) <= 2 * largest
    assert attempts[-1] == 0, "the first attempt after the reader has ended succeeds"
    assert Path(f"{file}-wal").stat().st_size < 2 * LIMIT + COMMITS * len(OUTPUT)
    await store.close()
