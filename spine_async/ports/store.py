"""Where runs are kept.

The contract in words; `spine_async.testing` holds it as a test suite that every store passes.

A store keeps runs, their finished step visits and their events. `commit` is the fence: a change is written whole or not
at all, and only if the stored run has the change's epoch and expected number and is still under way. Changes of one
call are fenced each by itself, so that a superseded run spoils nothing for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from spine_async._model.record import (
    Busy,
    Claim,
    EventRow,
    NewRun,
    PastVisit,
    Renewal,
    RunChange,
    RunFilter,
    StoredRun,
    VisitRow,
)


class CommitOutcome(StrEnum):
    """What became of one change: committed whole, or refused because the run has another owner or has ended."""

    COMMITTED = "committed"
    FENCED = "fenced"


class RunStore(Protocol):
    """Keeps runs. Methods raise `StoreUnavailableError` when the store cannot be reached."""

    async def open(self) -> None:
        """Have everything there that the first call would wait for; called as a runner is entered.

        May be called again. Makes no store where there is none, if reading would not; and who never calls it finds the
        store opening when it is first used.
        """
        ...

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        """Store new runs, each with its `workflow_started` event (number 1, where it emits), leased to its owner.

        A run that this very creation has made before, by its `commit_id`, and to which nothing has happened since, gets
        its claim again: so a creation whose answer was not heard may be made once more.

        Returns:
            For each run its claim with epoch 1, or None where the id is taken already.
        """
        ...

    async def claim(
        self,
        run_id: str,
        owner: str,
        event: EventRow | None,
        *,
        ttl: float,
        over_epoch: int | None = None,
        unless_ended: bool = False,
    ) -> Claim | Busy | None:
        """Take the run over: epoch + 1, state running, its error and end cleared, `event` stored with the next number.

        Only where it has no owner, its lease has ended by the store's own clock, it is `owner`'s already, or its epoch
        is `over_epoch`. `claims_since_progress` becomes one more, or 1 where the run had ended; a stop asked for is
        forgotten.

        Args:
            run_id: The run.
            owner: Who takes it.
            event: What is told of it; its `timestamp` is the moment of the claim as the engine sees it.
            ttl: Seconds for which it is the owner's without being renewed.
            over_epoch: Epoch of an owner that is known to be gone, to claim over a lease that has not ended.
            unless_ended: Refuse a run that has failed or stopped too: only an explicit resume may leave those states.

        Returns:
            The claim; `Busy` where somebody else holds it; None where the run is not stored, has completed, or has
            ended and `unless_ended` is given.
        """
        ...

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        """Extend the leases of runs that are under way at the claim's epoch by `ttl` seconds from now."""
        ...

    async def request_stop(self, run_id: str, reason: str) -> bool:
        """Leave word for the run's owner, found by `renew`, that it is to stop; whether the run is under way."""
        ...

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        """Write the changes in one transaction, each fenced by itself; at most one change for a run.

        A change that is the run's last one already, by its epoch and `commit_id`, counts as committed and is not
        written again: so a commit whose answer was not heard may be made once more.

        Cancellation:
            The engine never cancels a commit; a store need not survive it.
        """
        ...

    async def load(self, run_id: str) -> StoredRun | None:
        """The run, or None where it is not stored."""
        ...

    async def visits(
        self, run_id: str, below: str | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[VisitRow]:
        """Journal entries in the order of their numbers.

        A page of a map that is still being executed costs as much as the page, however many entries precede it.

        Args:
            run_id: The run.
            below: None for the entries outside of map items; a map's path for all entries inside of its items.
            after: Only entries with a number above this one.
            limit: At most this many entries; fewer only if there are no more. None for all.
        """
        ...

    async def past_visits(self, run_id: str) -> Sequence[PastVisit]:
        """The entries that `visits` gives outside of map items, with no more than a resume needs."""
        ...

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        """Runs that fit the filter, the newest first."""
        ...

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        """At most `limit` events with a number above `after`, in order, those that visits tell of included."""
        ...

    async def delete(self, run_id: str) -> bool:
        """Remove the run with all it has; whether there was one."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads. The store opens again when it is next used."""
        ...
