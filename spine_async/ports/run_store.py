"""The run store protocol.

`spine_async.testing` contains this contract as a test suite that every store passes. `docs/stores.md` describes how to
write a store. The types are public in `spine_async.storage.port`.

A store contains runs, their finished step visits and their events. Commits are fenced: `commit` writes a change only if
the stored run has the epoch and the expected number of the change and has not ended. It writes each change completely
or not at all. The changes of one call are checked independently of each other, so a run with a newer owner does not
affect the others.

A store retries transient errors itself, and raises `StoreUnavailableError` when its time limit is over. The limit is
less than the duration of a lease. A call whose answer was lost is repeated unchanged; `create` and `commit` recognise
their own effect by a token. A page of visits or events continues behind a number. A listing continues behind a place
(`RunCursor`), whether or not its run is still stored.

The port has ten methods besides `open` and `close`. What else a store may be able to do is a capability with a protocol
of its own; the engine manages without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Busy, Claim, Renewal
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.errors import StoreError


class CommitOutcome(StrEnum):
    """Result of committing one change.

    `committed`: the whole change is stored. `fenced`: nothing is stored; the run has another owner or has ended.
    `locked`: nothing is stored, because another transaction has locked the row of the run. The engine sends the
    identical change again, in a call of its own. Only stores in which other programs can lock rows return it.
    """

    COMMITTED = "committed"
    FENCED = "fenced"
    LOCKED = "locked"


class DeleteIf(StrEnum):
    """Condition under which a run is removed.

    `stored`: in any case. `ended`: the run has ended. `unused`: the run has ended, and its parent, if it is stored, has
    ended too, so that no resume asks for the run. With `unused` the store need not wait for a run that another
    transaction has locked, nor for the disk: a removal that is left out or undone is repeated by a later call.
    """

    STORED = "stored"
    ENDED = "ended"
    UNUSED = "unused"


class RunIdLockedError(StoreError):
    """Another transaction is creating or deleting a run with the id of one of the runs that are to be created."""

    def __init__(self) -> None:
        super().__init__(
            "another transaction has inserted or deleted a run with this id and is still open; find it, and end it"
        )


class RunStore(Protocol):
    """Stores runs. Methods raise `StoreUnavailableError` if the store cannot be reached."""

    async def open(self) -> None:
        """Open connections in advance, so that the first call does not wait for them; called when a runner is entered.

        May be called repeatedly. It does not create a missing database unless a read would create it too. The call is
        optional: a store that is not open opens at its first use.
        """
        ...

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        """Store new runs, each leased to its owner. A run without an owner is due, see `DueRunStore`.

        A run that has an owner and records events gets a `workflow_started` event with number 1.

        The call may be repeated after a lost answer. If the stored run has the `commit_id` of the creation and has not
        changed since, the call returns its claim again.

        Returns:
            For each run its claim with epoch 1, or 0 if it has no owner; None if the id is taken.

        Raises:
            RunIdLockedError: An open transaction decides whether one of the ids is taken, and has not ended within a
                short time; no run was created. Only stores in which other programs can have transactions raise it.
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
        """Claim a run for an owner.

        A claim succeeds if at least one of these conditions holds:

        * the run has no owner,
        * its lease has expired, by the clock of the store,
        * its owner is `owner`,
        * its epoch is `over_epoch`.

        A successful claim

        * increments the epoch and sets the status to running,
        * sets `started_at` if it is the first claim of the run,
        * clears the error, the end and the requested stop of the run,
        * stores `event` with the next number,
        * increments `claims_since_progress` if the run had an owner and was running, and sets it to 1 if it had ended.

        Args:
            run_id: The run.
            owner: The new owner.
            event: Event to store with the claim, or None; its `timestamp` is the time of the claim.
            ttl: Seconds until the lease expires unless it is renewed.
            over_epoch: Epoch of an owner that is known to be dead; its lease is ignored.
            unless_ended: Whether to refuse a run that has failed or stopped. Only an explicit resume claims such a run.

        Returns:
            The claim. `Busy` if another owner holds the run. None if the run is not stored, has completed, or has ended
            and `unless_ended` is True.
        """
        ...

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        """Extend leases to `ttl` seconds from now, for the claims whose epoch is current and whose run has not ended.

        A renewal does not wait for commits. It waits only for a short time for a row that another transaction has
        locked. If the row stays locked, the run counts as held, but its lease is not extended.

        Args:
            claims: The claims.
            ttl: Seconds. 0 releases the runs: they have no owner afterwards, and are due now.

        Returns:
            For each claim: whether it is still held, the reason of a requested stop, and whether it was extended.
        """
        ...

    async def request_stop(self, run_id: str, reason: str) -> bool:
        """Ask the owner of a run to stop it; the owner receives the request from `renew`.

        Returns:
            Whether the run is stored and has not ended.
        """
        ...

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        """Write changes, at most one for each run. Each change is written whole or not at all, and fenced by itself.

        The call may be repeated after a lost answer. A change that has the epoch and the `commit_id` of the last change
        of its run counts as committed and is not written again.

        Returns:
            For each change whether it was committed, fenced or locked.

        Cancellation:
            The engine never cancels a commit; a store need not support it.
        """
        ...

    async def load(self, run_id: str) -> StoredRun | None:
        """The run, or None if it is not stored."""
        ...

    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        """Journal entries that the filter selects, in the order of their numbers.

        A page costs as much as its entries, however many precede it: also a page of several scopes, and a page inside
        a map that is still being executed.

        Args:
            run_id: The run.
            chosen: Which entries; those of the run's own steps if it is left out.
        """
        ...

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        """Runs that match the filter, ordered by `created_at` and `key`; the newest first unless it says otherwise."""
        ...

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        """At most `limit` events with a number above `after`, in order, including those derived from visits."""
        ...

    async def delete(self, run_ids: Sequence[str], condition: DeleteIf = DeleteIf.STORED) -> list[str]:
        """Remove those of the runs that meet a condition, each with all its rows or not at all.

        The store checks the condition in the statement that removes the run. So a concurrent claim either prevents the
        removal or does not find the run.

        Args:
            run_ids: Ids of at most about a hundred runs. The store may remove them in one transaction.
            condition: The condition.

        Returns:
            The ids of the runs that were removed, in any order.
        """
        ...

    async def close(self) -> None:
        """Close connections and threads. The store opens again at its next use."""
        ...
