"""The capability of a store to commit a step together with what its handler writes to the same database."""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard

from spine_async._model.run_change import RunChange
from spine_async.ports.run_store import CommitOutcome


class StepTransaction(Protocol):
    """The transaction of one attempt of a step, as the engine gives it to a store."""

    def execute(self, connection: Any) -> BaseException | None:
        """Call the handler of the step; may block, and runs in a thread on some stores.

        Returns:
            What the handler raised, or None. An exception that is no `Exception` is raised.
        """
        ...

    def reject(self, error: BaseException, *, is_transient: bool) -> None:
        """Let the attempt fail with this error; the transaction is rolled back.

        Args:
            error: The error.
            is_transient: Whether another attempt may succeed.
        """
        ...

    async def complete(self) -> RunChange | None:
        """The change that commits the end of the step; None to roll back.

        Called once after `execute`, in the event loop.
        """
        ...


class TransactionStore(Protocol):
    """Executes transactions of steps.

    Attributes:
        blocks_commits: Whether the store commits nothing else while such a transaction is open.
    """

    @property
    def blocks_commits(self) -> bool: ...

    async def transact(self, transaction: StepTransaction, seconds: float) -> CommitOutcome | None:
        """Begin a transaction, execute the handler, write the change, and commit.

        The fence of the change is the last thing that is written before the commit. The handler gets a synchronous
        connection. It cannot end the transaction itself: this is an error with which `reject` is called.

        Args:
            transaction: What is executed.
            seconds: Time limit from the beginning of the transaction to its commit.

        Returns:
            `committed`; `fenced` if the run has another owner or has ended; None if nothing was written, because
            `complete` returned None, or because the database refused the commit and `reject` was called. If the
            answer to the commit is lost, the store finds out what has become of it.

        Raises:
            StoreError: The store failed. If `complete` had returned a change, it is not known whether it is committed.
            TimeoutError: The time limit was exceeded; nothing is written.

        Cancellation:
            Nothing is written, unless `complete` has returned a change.
        """
        ...


def executes_transactions(store: object) -> TypeGuard[TransactionStore]:
    """Whether a store has this capability; see `keeps_due_runs`."""
    return hasattr(store, "transact")
