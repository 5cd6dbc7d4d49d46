"""The rule that decides whether a run may be claimed, independent of the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex

from spine_async._model.queue import Queue
from spine_async._model.run_claim import Busy, Claim
from spine_async._model.run_row import TOKEN_BYTES
from spine_async._model.status import RunStatus
from spine_async._model.visit_row import EventRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """The arguments of `RunStore.claim`.

    Attributes:
        limits: Limits of the queue of the run, or None.
        token: Random text that is stored with the claim, so that a retry recognizes its own claim.
    """

    run_id: str
    owner: str
    event: EventRow | None
    ttl: float
    over_epoch: int | None = None
    unless_ended: bool = False
    limits: Queue | None = None
    token: str = field(default_factory=lambda: token_hex(TOKEN_BYTES))

    @property
    def at(self) -> datetime:
        return self.event.timestamp if self.event is not None else datetime.now(UTC)


LEASE_STATE_COLUMNS = ("id", "epoch", "next_seq", "status", "owner", "commit_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """The properties of the stored run that the rule needs.

    Attributes:
        key: The column `id`.
        is_leased: Whether the lease is valid.
        lease_until: When the lease ends, or None if that is unknown.
    """

    key: int
    epoch: int
    next_seq: int
    status: str
    owner: str | None
    commit_id: str | None
    is_leased: bool
    lease_until: datetime | None


@dataclass(frozen=True, slots=True)
class Claimable:
    """The run may be claimed while it has this epoch and status."""

    epoch: int
    status: str


def decide(request: ClaimRequest, state: LeaseState | None) -> Claim | Busy | Claimable | None:
    """Apply the rule to a request and the run's current state.

    Returns:
        - None if the run is not stored, has completed, or has ended and `unless_ended` is set.
        - The existing `Claim` if an earlier attempt of the same request has claimed the run.
        - `Claimable` if the run has no owner, its lease has ended, the owner is the same, or its epoch is `over_epoch`.
        - `Busy` in all other cases.
    """
    if state is None or state.status == RunStatus.COMPLETED:
        return None
    if state.commit_id == request.token:
        return Claim(run_id=request.run_id, key=state.key, epoch=state.epoch, next_seq=state.next_seq)
    if request.unless_ended and RunStatus(state.status).is_final:
        return None
    if not state.is_leased or state.owner in {None, request.owner} or state.epoch == request.over_epoch:
        return Claimable(state.epoch, state.status)
    return Busy(owner=str(state.owner), epoch=state.epoch, lease_until=state.lease_until)


def lease_state(row: Sequence[object], *, lease_until: datetime | None) -> LeaseState:
    """The state in a row of `LEASE_STATE_COLUMNS` and `is_leased`."""
    key, epoch, next_seq, status, owner, commit_id, is_leased = row
    return LeaseState(
        key=int(str(key)),
        epoch=int(str(epoch)),
        next_seq=int(str(next_seq)),
        status=str(status),
        owner=None if owner is None else str(owner),
        commit_id=None if commit_id is None else str(commit_id),
        is_leased=bool(is_leased),
        lease_until=lease_until,
    )
