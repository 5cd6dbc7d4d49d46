"""The capabilities of a store are found through the wrapper that maps its errors."""

from __future__ import annotations

from spine_async._engine.commit.guarded_store import guarded
from spine_async.ports import keeps_due_runs, writes_within
from spine_async.storage import MemoryRunStore, SqlRunStore
from spine_async.testing import FaultInjectingStore


class Plain:
    """A store with the first port only."""

    async def load(self, run_id: str) -> None:
        return None


def test_a_wrapped_store_keeps_due_runs() -> None:
    assert keeps_due_runs(guarded(MemoryRunStore()))
    assert keeps_due_runs(guarded(SqlRunStore.from_url("sqlite:///never-opened.db")))
    assert keeps_due_runs(guarded(FaultInjectingStore(MemoryRunStore())))


def test_a_store_without_the_calls_keeps_none() -> None:
    assert not keeps_due_runs(guarded(Plain()))  # type: ignore[arg-type]


def test_only_a_database_writes_in_a_transaction_of_its_caller() -> None:
    assert writes_within(guarded(SqlRunStore.from_url("sqlite:///never-opened.db")))
    assert not writes_within(guarded(MemoryRunStore()))
