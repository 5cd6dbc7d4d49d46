"""The interface of a journal: the protocol `Recorder`, and `Commit`, a commit that was enqueued."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from spine_async._engine.commit.creation import Creation
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.tasks import Future
from spine_async._model.run_change import RunChange

OnCommit: TypeAlias = "Callable[[RunChange], None]"


class Recorder(Protocol):
    """Creates runs and commits their pending writes.

    Attributes:
        on_commit: Called after each commit of a change, or None.
    """

    on_commit: OnCommit | None

    async def create(self, creation: Creation) -> None: ...

    async def create_all(self, creations: Sequence[Creation]) -> None: ...

    def commit(self, pending: PendingWrites) -> Awaitable[None]: ...

    def enqueue(self, pending: PendingWrites) -> Commit: ...

    def defer(self) -> Awaitable[None]:
        """Leave the pending writes for a later commit; yields to the event loop now and then."""
        ...

    def reserved(self, pending: PendingWrites) -> AbstractAsyncContextManager[None]:
        """Commit nothing of a run inside the context; the caller commits a change of it in another way."""
        ...

    def committed(self, pending: PendingWrites, change: RunChange) -> None:
        """Take note that the caller has committed a change in another way."""
        ...

    async def end_retries(self) -> None:
        """Give up the locked changes of runs that are not executed any more, before the store is closed."""
        ...

    def forget_loop(self) -> None:
        """Drop what belongs to an event loop that is closed."""
        ...


class Commit(Protocol):
    """A commit that was enqueued."""

    def wait(self) -> Awaitable[None]:
        """Wait until it has ended; raises as `Journal.commit` does."""
        ...

    @property
    def is_set(self) -> bool:
        """Whether it has ended, so that `wait` returns at once."""
        ...

    @property
    def error(self) -> BaseException | None:
        """The error with which it failed, or None."""
        ...

    def future(self) -> Future[None]:
        """A future that is done when it has ended, in whatever way."""
        ...

    async def wait_shielded(self) -> None:
        """Wait until it has ended, even if the caller is cancelled; never raises."""
        ...

    def add_error_callback(self, callback: Callable[[BaseException], None]) -> None:
        """Call `callback` with the error if it fails."""
        ...
