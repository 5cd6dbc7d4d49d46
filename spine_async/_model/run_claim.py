"""Claims of runs: the right to commit to a run, its renewal, and refusals."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(slots=True)
class Claim:
    """The right to commit to a run, valid until the next claim of the run.

    Attributes:
        key: The store's own short key for the run.
        epoch: Number of the claim; the store refuses commits of older epochs.
        next_seq: Number of the run's next event.
        lease_until_mono: When the lease ends by the monotonic clock of the owner. The engine sets it; stores ignore it.
    """

    run_id: str
    key: int
    epoch: int
    next_seq: int
    lease_until_mono: float = field(default=math.inf, compare=False, repr=False)


@dataclass(slots=True)
class Busy:
    """A refused claim: another owner holds the run.

    Attributes:
        epoch: Epoch of the owner; `claim(over_epoch=...)` takes it if that owner is known to be dead.
        lease_until: When the owner's lease expires unless it is renewed, or None if unknown.
    """

    owner: str
    epoch: int
    lease_until: datetime | None


@dataclass(frozen=True, slots=True)
class NoRoom:
    """A refused claim: the limits of the run's queue leave no room.

    Attributes:
        seconds: Seconds until the rate of the queue lets another run begin; None if another limit is the reason.
    """

    seconds: float | None = None


@dataclass(slots=True)
class Renewal:
    """Result of renewing one lease.

    Attributes:
        is_held: Whether the claim still holds the run.
        stop_reason: Reason of a requested stop, or None.
        is_extended: Whether the lease ends later now; False if another transaction has locked the run's row.
    """

    is_held: bool
    stop_reason: str | None = None
    is_extended: bool = True
