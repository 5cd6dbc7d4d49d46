"""The capability of a store to keep runs that no owner holds, and messages for runs.

A stored run that has not ended is held or due. A held run has an owner with a lease. A due run has no owner, and a time
from which any worker may claim it; without a time, only a message or an explicit claim makes it due. A run is *ready*
when a worker may claim it now. A sweep makes runs ready; a claim looks only at ready runs, so its cost does not depend
on how many runs are stored, delayed or waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeGuard

from spine_async._model.due import Delivery, DueRequest, DueRun, NewMessage, Notice, RunState, Sweep
from spine_async._model.record import Claim, Release


class Listener(Protocol):
    """Reports changes until it is closed."""

    async def close(self) -> None:
        """Report nothing more."""
        ...


class NoListener:
    """The listener of a store in which only this process makes changes, or which cannot notice others."""

    async def close(self) -> None:
        """Do nothing."""


class DueRunStore(Protocol):
    """Keeps due runs and messages. Methods raise `StoreUnavailableError` if the store cannot be reached."""

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        """Claim ready runs for a worker.

        * Only runs of the given workflows whose `workflow_version` is not above the given one.
        * Only runs of the given queues, and runs without a queue.
        * Lower `priority` numbers first. Within a priority, runs that were started before come before new ones; then
          the one that became ready first.
        * Two workers never claim the same run.

        A claim increments the epoch, sets the status to running unless the run waits, and stores no event. If the run
        had an owner and the status running, it increments `claims_since_progress`. A requested stop is kept. The first
        claim of a run sets `started_at`. A run with the version 0 was enqueued where its workflow is not known; its
        first claim sets the version to that of the worker.

        The call may be repeated after a lost answer: runs that it has claimed already are returned again, and count
        towards the limit.
        """
        ...

    async def sweep(self, gone: Collection[str] = (), lapsed: Collection[str] = ()) -> Sweep:
        """Make runs ready that are due.

        * Runs without an owner whose time has come.
        * Runs without an owner that have a message which arrived since they were released.
        * Runs whose owner is in `gone`.
        * Runs whose lease has ended and whose owner is in `lapsed`.

        Only the caller can judge whether an owner still exists. So a run whose lease has ended stays held while its
        owner is in neither collection.
        """
        ...

    async def release_run(self, claim: Claim, release: Release) -> bool:
        """Give up a held run without a commit, whatever was committed to it meanwhile; the epoch must be current.

        Returns:
            Whether the run was held by this claim.
        """
        ...

    async def send(self, message: NewMessage) -> Delivery:
        """Store a message for a run that has not completed. The row of the run is not changed.

        The call may be repeated after a lost answer.
        """
        ...

    async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
        """For each claim the requested stop and the messages that no step has taken.

        Nothing for a claim that is superseded, and nothing for a run with neither.
        """
        ...

    async def states(self, run_ids: Sequence[str]) -> list[RunState]:
        """The states of the runs that are stored, in any order."""
        ...

    async def listen(self, on_change: Callable[[], None]) -> Listener:
        """Report changes that other users of the store make: runs that are created, released or ended, and messages.

        Args:
            on_change: Called in the event loop after such a change; it may also be called without one. A store that
                cannot notice changes never calls it.
        """
        ...


_METHODS = ("claim_due", "sweep", "release_run", "send", "notices", "states", "listen")


def keeps_due_runs(store: object) -> TypeGuard[DueRunStore]:
    """Whether a store has this capability.

    Not by `isinstance`, which from Python 3.12 on does not find the methods of a wrapper that forwards all attributes.
    """
    return all(hasattr(store, name) for name in _METHODS)
