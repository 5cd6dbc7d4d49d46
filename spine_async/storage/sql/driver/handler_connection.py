"""The connection that the handler of a transaction step gets: the handler cannot end its transaction."""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn, Self

from sqlalchemy import Connection, event

from spine_async._model.run_change import RunChange
from spine_async.errors import DefinitionError
from spine_async.ports import CommitOutcome, StepTransaction

_TRANSACTION_ENDED = (
    "the handler has ended the transaction of its step, so what it wrote before may be committed; it must not execute "
    "COMMIT, ROLLBACK or a statement that commits"
)
_REFUSED = (
    "the handler of a transaction must neither commit nor roll back, nor close its connection: the runner commits what "
    "it wrote together with the end of the step; raise an exception to roll back, or use connection.begin_nested() for "
    "a part of it"
)


class HandlerGuard:
    """Refuses to commit, roll back or close a connection while the handler has it.

    Args:
        connection: The connection.

    Attributes:
        error: The error of the first refused call, or None.
    """

    def __init__(self, connection: Connection) -> None:
        self.error: DefinitionError | None = None
        self._connection = connection

    def __enter__(self) -> Self:
        vars(self._connection)["close"] = self._refuse  # it would return the connection to its pool
        event.listen(self._connection, "commit", self._refuse)
        event.listen(self._connection, "rollback", self._refuse)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del vars(self._connection)["close"]
        event.remove(self._connection, "commit", self._refuse)
        event.remove(self._connection, "rollback", self._refuse)

    def _refuse(self, *_: object) -> None:
        self.error = self.error or DefinitionError(_REFUSED)
        raise self.error


class MisusedConnectionError(Exception):
    """The handler has ended its transaction, or has tried to; the connection may be in any state."""


def execute_guarded(transaction: StepTransaction, connection: Connection) -> BaseException | None:
    """Call the handler with the connection; returns what it raised.

    Raises:
        MisusedConnectionError: It has tried to end the transaction, and may have caught the error.
    """
    with HandlerGuard(connection) as guard:
        error = transaction.execute(connection)
    if guard.error is not None:
        transaction.reject(guard.error, is_transient=False)
        raise MisusedConnectionError
    return error


def refuse_ended(transaction: StepTransaction) -> NoReturn:
    """Let the attempt fail because its handler has executed a statement that ends the transaction."""
    transaction.reject(DefinitionError(_TRANSACTION_ENDED), is_transient=False)
    raise MisusedConnectionError


def outcome_of(change: RunChange, epoch: object, commit_id: object) -> CommitOutcome | None:
    """The outcome of a change, from the last change that was committed to its run; None if it was not committed."""
    if epoch != change.epoch:
        return CommitOutcome.FENCED
    return CommitOutcome.COMMITTED if commit_id == change.commit_id else None
