"""The capability of a store to keep runs that no owner holds, and messages for runs.

A stored run that has not ended is held or due. A held run has an owner with a lease. A due run has no owner, and a time
from which any worker may claim it; without a time, only a message or an explicit claim makes it due. A run is *ready*
when a worker may claim it now. A sweep makes runs ready; a claim looks only at ready runs, so its cost does not depend
on how many runs are stored, delayed or waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeGuard

from spine_async._model.due import Backlog, Delivery, DueRequest, DueRun, NewMessage, Notice, OpenWait, RunState, Sweep
from spine_async._model.queue import Queue
from spine_async._model.run_change import Release
from spine_async._model.run_claim import Busy, Claim, NoRoom
from spine_async._model.visit_row import EventRow


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

    async def claim_queued(
        self,
        run_id: str,
        owner: str,
        event: EventRow | None,
        *,
        limits: Queue,
        ttl: float,
        over_epoch: int | None = None,
        unless_ended: bool = False,
    ) -> Claim | Busy | NoRoom | None:
        """Claim a given run as `RunStore.claim` does, within the limits of its queue.

        Args:
            run_id: The run.
            owner: The new owner.
            event: Event to store with the claim, or None.
            limits: Limits of the queue of the run, as in `claim_due`.
            ttl: Seconds until the lease expires unless it is renewed.
            over_epoch: Epoch of an owner that is known to be dead; its lease is ignored.
            unless_ended: Whether to refuse a run that has failed or stopped.

        Returns:
            As `RunStore.claim`; `NoRoom` if the run could be claimed, but the limits leave no room.
        """
        ...

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        """Claim ready runs for a worker.

        * Only runs of the given workflows whose `workflow_version` is not above the given one.
        * Only runs of the given queues, and runs without a queue.
        * Lower `priority` numbers first. Within a priority, runs whose owner was lost while they were running come
          first, then other runs that were started before, then new ones; then the one that became ready first.
        * Of the new runs of a queue that have keys, those of the keys that were served least come first.
        * Two workers never claim the same run.
        * No claim exceeds the limits that are given for its queue. A run counts as held from its claim until it ends,
          is released, or a sweep finds that its owner has lost it. `rate` counts first claims, also those of runs that
          were deleted since. Only claims with a rate are recorded.

        A claim increments the epoch, sets the status to running unless the run waits, and stores no event. If the run
        had an owner and the status running, it increments `claims_since_progress`. A requested stop is kept. The first
        claim of a run sets `started_at`. A run with the version 0 was enqueued where its workflow is not known; its
        first claim sets the version to that of the worker.

        The call may be repeated after a lost answer: runs that it has claimed already are returned again, and count
        towards the limit.

        Returns:
            The claimed runs. If the rate of a queue has kept a run from being claimed, they are `DueRuns`, which say
            when to ask again.
        """
        ...

    async def sweep(
        self, gone: Collection[str] = (), lapsed: Collection[str] = (), spared: Collection[str] = ()
    ) -> Sweep:
        """Make runs ready that are due.

        * Runs without an owner whose time has come.
        * Runs without an owner that have a message which arrived since they were released.
        * Runs whose owner is in `gone`.
        * Runs whose lease has ended and whose owner is in `lapsed`, except those whose ids are in `spared`.

        Only the caller can judge whether an owner still exists. So a run whose lease has ended stays held while its
        owner is in neither collection.
        """
        ...

    async def unlisted_queues(self, listed: Collection[str]) -> list[str]:
        """Record that a worker works on the queues in `listed`; find the queues on which nobody works.

        Returns:
            The queues with runs that became due a minute ago or earlier, and that no worker has listed for a minute.
        """
        ...

    async def release_run(self, claim: Claim, release: Release) -> bool:
        """Release a held run without a commit, whatever was committed to it meanwhile; the epoch must be current.

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

    async def backlog(self, limit: int) -> Backlog:
        """Count the runs that have not ended.

        Args:
            limit: Counting ends at this number of due, parked, held and delayed runs each, so that the call is cheap
                however many there are.
        """
        ...

    async def open_waits(self, run_ids: Sequence[str]) -> list[OpenWait]:
        """The visits of these runs that wait for a signal, ordered by run id and path.

        These are the visits that an event has announced, if neither they nor the steps of the run that they are inside
        of have ended.
        """
        ...

    async def listen(self, on_change: Callable[[], None]) -> Listener:
        """Report changes that other users of the store make: runs that are created, released or ended, and messages.

        Args:
            on_change: Called in the event loop after such a change; it may also be called without one. A store that
                cannot notice changes never calls it.
        """
        ...


_METHODS = (
    "claim_queued",
    "claim_due",
    "sweep",
    "unlisted_queues",
    "release_run",
    "send",
    "notices",
    "states",
    "backlog",
    "open_waits",
    "listen",
)


def keeps_due_runs(store: object) -> TypeGuard[DueRunStore]:
    """Whether a store has this capability.

    Not by `isinstance`, which from Python 3.12 on does not find the methods of a wrapper that forwards all attributes.
    """
    return all(hasattr(store, name) for name in _METHODS)
