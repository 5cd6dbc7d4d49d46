"""Who may claim a run: the rule, apart from the databases that it is applied in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex

from spine_async._model.record import TOKEN_BYTES, Busy, Claim, EventRow
from spine_async._model.status import RunStatus


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What somebody asks for; `RunStore.claim` says what its parts mean."""

    run_id: str
    owner: str
    event: EventRow | None
    ttl: float
    over_epoch: int | None = None
    unless_ended: bool = False
    token: str = field(default_factory=lambda: token_hex(TOKEN_BYTES))

    @property
    def at(self) -> datetime:
        return self.event.timestamp if self.event is not None else datetime.now(UTC)


HOLDING_COLUMNS = ("id", "epoch", "next_seq", "status", "owner", "commit_id")


@dataclass(frozen=True, slots=True)
class Holding:
    """How a run stands: the values of `HOLDING_COLUMNS`, whether its lease holds, and until when."""

    key: int
    epoch: int
    next_seq: int
    status: str
    owner: str | None
    commit_id: str | None
    is_leased: bool
    lease_until: datetime | None


@dataclass(frozen=True, slots=True)
class Free:
    """The run may be claimed, as long as it still has this epoch and is in this state."""

    epoch: int
    status: str


def judge(asked: ClaimRequest, held: Holding | None) -> Claim | Busy | Free | None:
    """What becomes of the request.

    Returns:
        `Free` where the run may be taken; its claim where an earlier try of the same request took it; `Busy` where
        somebody else holds it; None where it is not stored or has ended in a way that it may not be taken from.
    """
    if held is None or held.status == RunStatus.COMPLETED:
        return None
    if held.commit_id == asked.token:
        return Claim(asked.run_id, held.key, held.epoch, held.next_seq)
    if asked.unless_ended and RunStatus(held.status).is_final:
        return None
    if not held.is_leased or held.owner in {None, asked.owner} or held.epoch == asked.over_epoch:
        return Free(held.epoch, held.status)
    return Busy(str(held.owner), held.epoch, held.lease_until)


def holding(row: Sequence[object], *, lease_until: datetime | None) -> Holding:
    """How a run stands, from a row of `HOLDING_COLUMNS` and `is_leased`."""
    key, epoch, next_seq, status, owner, commit_id, is_leased = row
    return Holding(
        key=int(str(key)),
        epoch=int(str(epoch)),
        next_seq=int(str(next_seq)),
        status=str(status),
        owner=None if owner is None else str(owner),
        commit_id=None if commit_id is None else str(commit_id),
        is_leased=bool(is_leased),
        lease_until=lease_until,
    )
