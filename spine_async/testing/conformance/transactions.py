"""The contract of `TransactionStore.transact`: a change is committed with what a handler wrote, or neither is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, text

from spine_async._model.run_change import RunChange
from spine_async.ports import CommitOutcome, RunStore, TransactionStore, executes_transactions
from spine_async.testing.conformance.rows import change, created, visit

_SECONDS = 30.0


def _transacting(store: RunStore) -> TransactionStore:
    if not executes_transactions(store):
        pytest.skip("the store executes no transactions")
    return store


class _Transaction:
    """A transaction whose handler adds a row to a table, and whose change is given."""

    def __init__(self, given: RunChange | None, work: Callable[[Connection], object] = lambda connection: None) -> None:
        self.rejected: BaseException | None = None
        self._change = given
        self._work = work

    def execute(self, connection: Any) -> BaseException | None:
        connection.execute(text("CREATE TABLE IF NOT EXISTS conformance_written (n INTEGER)"))
        connection.execute(text("INSERT INTO conformance_written VALUES (1)"))
        try:
            self._work(connection)
        except Exception as exc:  # noqa: BLE001 - as the engine does
            return exc
        return None

    def reject(self, error: BaseException, *, is_transient: bool) -> None:
        self.rejected = error

    async def complete(self) -> RunChange | None:
        return None if self.rejected is not None else self._change


class _Count(_Transaction):
    """Counts the rows that were written, and writes nothing."""

    def __init__(self) -> None:
        super().__init__(None)
        self.rows = 0

    def execute(self, connection: Any) -> BaseException | None:
        connection.execute(text("CREATE TABLE IF NOT EXISTS conformance_written (n INTEGER)"))
        self.rows = connection.execute(text("SELECT count(*) FROM conformance_written")).scalar_one()
        return None


class TransactionContract:
    """What a transaction of a step commits, and what it rolls back."""

    async def _written(self, store: TransactionStore) -> int:
        count = _Count()
        assert await store.transact(count, _SECONDS) is None
        return count.rows

    async def test_a_transaction_commits_the_change_and_what_the_handler_wrote(self, store: RunStore) -> None:
        transacting = _transacting(store)
        claim = await created(store)
        given = change(claim, [visit("pay", claim.next_seq)])
        assert await transacting.transact(_Transaction(given), _SECONDS) is CommitOutcome.COMMITTED
        assert [row.path for row in await store.visits("run-1")] == ["pay"]
        assert await self._written(transacting) == 1

    async def test_a_transaction_without_a_change_writes_nothing(self, store: RunStore) -> None:
        transacting = _transacting(store)
        assert await transacting.transact(_Transaction(None), _SECONDS) is None
        assert await self._written(transacting) == 0

    async def test_a_fenced_transaction_writes_nothing(self, store: RunStore) -> None:
        transacting = _transacting(store)
        claim = await created(store)
        older = replace(change(claim, [visit("pay", claim.next_seq)]), epoch=claim.epoch - 1)
        assert await transacting.transact(_Transaction(older), _SECONDS) is CommitOutcome.FENCED
        assert await store.visits("run-1") == []
        assert await self._written(transacting) == 0

    async def test_a_handler_that_ends_the_transaction_is_rejected(self, store: RunStore) -> None:
        transacting = _transacting(store)
        claim = await created(store)
        given = change(claim, [visit("pay", claim.next_seq)])
        transaction = _Transaction(given, lambda connection: connection.commit())
        assert await transacting.transact(transaction, _SECONDS) is None
        assert transaction.rejected is not None
        assert await store.visits("run-1") == []
        assert await self._written(transacting) == 0

    async def test_transactions_of_one_store_follow_each_other(self, store: RunStore) -> None:
        transacting = _transacting(store)
        claim = await created(store)
        for number in range(3):
            given = change(claim, [visit("pay" if number == 0 else f"pay#{number + 1}", claim.next_seq)])
            assert await transacting.transact(_Transaction(given), _SECONDS) is CommitOutcome.COMMITTED
            claim.next_seq = given.next_seq
        assert len(await store.visits("run-1")) == await self._written(transacting) == 3
