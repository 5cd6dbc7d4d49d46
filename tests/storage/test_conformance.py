"""Every store passes the same contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spine_async import storage
from spine_async.ports import RunStore
from spine_async.storage import RedisRunStore
from spine_async.testing import FaultInjectingStore, RunStoreConformance


class TestMemoryRunStore(RunStoreConformance):
    @pytest.fixture
    def store(self) -> RunStore:
        return storage.MemoryRunStore()


class TestFaultInjectingStore(RunStoreConformance):
    """A store without faults is the store it wraps."""

    @pytest.fixture
    def store(self) -> RunStore:
        return FaultInjectingStore(storage.MemoryRunStore())


class TestSqlRunStore(RunStoreConformance):
    """On SQLite and on PostgreSQL."""

    @pytest.fixture
    async def store(self, database_url: str) -> AsyncIterator[RunStore]:
        store = storage.SqlRunStore.from_url(database_url)
        yield store
        await store.close()


class TestRedisRunStore(RunStoreConformance):
    @pytest.fixture
    async def store(self, redis_store_url: str) -> AsyncIterator[RunStore]:
        store = RedisRunStore(redis_store_url)
        yield store
        await store.close()


class TestFileRunStore(RunStoreConformance):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[RunStore]:
        store = storage.FileRunStore(tmp_path / "runs", durability="process")
        yield store
        await store.close()
