"""The capability of a store to write in a transaction of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from spine_async._model.due import Delivery, NewMessage
from spine_async._model.record import NewRun


@runtime_checkable
class CallerTransactionStore(Protocol):
    """Writes through a connection or session of the caller; the rows exist if and only if its transaction commits.

    Methods raise `DefinitionError` if the connection is of another kind, belongs to another database, or has no
    transaction that may write.
    """

    async def create_within(self, connection: object, runs: Sequence[NewRun]) -> list[bool]:
        """Store new due runs; returns for each whether it was stored, that is, whether its id was free."""
        ...

    async def send_within(self, connection: object, message: NewMessage) -> Delivery:
        """Store a message for a run."""
        ...
