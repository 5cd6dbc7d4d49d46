"""The capability of a store to write in a transaction of its caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard

from spine_async._model.due import Delivery, NewMessage
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import NewRun, StoredRun


class CallerTransactionStore(Protocol):
    """Writes through a connection of the caller, so that a run or a message exists if its transaction commits.

    `connection` is an `AsyncConnection` or `AsyncSession` of SQLAlchemy on the database of the store, in a transaction.

    Raises:
        DefinitionError: `connection` is something else, belongs to another database, or is in no transaction. On SQLite
            also if the transaction was not begun with BEGIN IMMEDIATE.
    """

    async def create_within(self, connection: object, runs: Sequence[NewRun]) -> list[Claim | None]:
        """As `RunStore.create`, in the caller's transaction. The ids are free again if it is rolled back."""
        ...

    async def load_within(self, connection: object, run_id: str) -> StoredRun | None:
        """As `RunStore.load`, in the caller's transaction, which may have created the run."""
        ...

    async def send_within(self, connection: object, message: NewMessage) -> Delivery:
        """As `DueRunStore.send`, in the caller's transaction."""
        ...


def writes_within(store: object) -> TypeGuard[CallerTransactionStore]:
    """Whether a store has this capability; see `keeps_due_runs`."""
    return all(hasattr(store, name) for name in ("create_within", "load_within", "send_within"))
