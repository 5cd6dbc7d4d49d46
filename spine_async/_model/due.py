"""Runs that no owner holds: when they are due. Messages that are sent to runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from secrets import token_hex

from spine_async._model.queue import Queue
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import TOKEN_BYTES, StoredRun
from spine_async._model.status import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRequest:
    """The request of a worker for runs that it can execute.

    Attributes:
        workflows: The workflows that the worker knows, with the highest version of each that it understands.
        queues: The queues that it works on. It always takes runs that belong to no queue.
        limits: Those of the queues that have limits.
        limit: Maximum number of runs.
        ttl: Seconds until the leases expire unless they are renewed.
        at: Time of the claims.
        token: Random text that is stored with the claims, so that a retry recognizes its own claims.
        made_mono: When the request was made, on the monotonic clock of the process.
    """

    owner: str
    workflows: Mapping[str, int]
    queues: frozenset[str]
    limit: int
    ttl: float
    at: datetime
    limits: tuple[Queue, ...] = ()
    token: str = field(default_factory=lambda: token_hex(TOKEN_BYTES))
    made_mono: float = field(default_factory=time.monotonic, compare=False)

    def at_now(self) -> DueRequest:
        """The request with a later time of the claims: what has passed since is added.

        A claim of a queue with a rate may have waited for other claims. It uses the later time, so that the recorded
        start times of the runs respect the rate too.
        """
        return replace(self, at=self.at + timedelta(seconds=time.monotonic() - self.made_mono))


@dataclass(slots=True)
class DueRun:
    """A run that a worker has claimed.

    Attributes:
        run: The run as it was before the claim.
        claim: The right to commit to it.
        due_in: Seconds from the claim until the time at which the run was due, by a clock that nobody sets; negative if
            it is over. None if that time was not given as a duration, or if the host was restarted since.
    """

    run: StoredRun
    claim: Claim
    due_in: float | None = None


class DueRuns(list[DueRun]):
    """The runs that a call has claimed.

    Attributes:
        room_in: Seconds until a queue lets another run begin; None if no rate has kept a run from being claimed.
    """

    def __init__(self, runs: Iterable[DueRun] = (), *, room_in: float | None = None) -> None:
        super().__init__(runs)
        self.room_in = room_in


@dataclass(slots=True)
class Sweep:
    """The result of a sweep.

    Attributes:
        owners: Owners of held runs that are not ready, and whether the lease of one of these runs has ended.
        next_due: Seconds until the next run becomes due or the next lease ends; None if no such time is known.
        made_ready: Whether the sweep may have made a run ready.
    """

    owners: Mapping[str, bool]
    next_due: float | None
    made_ready: bool = True


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many runs of the store have not ended, by the name of their queue; "" is for runs that belong to no queue.

    Attributes:
        due: Runs that a worker may claim now.
        parked: Runs that wait, and that no process holds.
        delayed: Pending runs whose time has not come.
        held: Runs that a process holds, by its name as an owner and the queue.
        oldest: When the run became due that has waited longest for its first claim.
        listed: When a worker last recorded that it works on the queue.
        is_partial: Whether the counting has ended at its limit, so that there may be more runs.
    """

    due: Mapping[str, int] = field(default_factory=dict)
    parked: Mapping[str, int] = field(default_factory=dict)
    delayed: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[tuple[str, str], int] = field(default_factory=dict)
    oldest: Mapping[str, datetime] = field(default_factory=dict)
    listed: Mapping[str, datetime] = field(default_factory=dict)
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class OpenWait:
    """A visit that waits for a signal.

    Attributes:
        since: When the wait began, or was continued.
        metadata: JSON object text of its `step_started` event: `{"signal": name, "until": ISO 8601 time or null}`.
    """

    run_id: str
    path: str
    step_name: str
    since: datetime
    metadata: str


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run without its documents.

    Attributes:
        is_leased: Whether it has an owner whose lease has not ended.
        is_due: Whether it has no owner and may be claimed now.
        next_seq: Number of its next event.
    """

    run_id: str
    status: RunStatus
    epoch: int
    owner: str | None
    is_leased: bool
    is_due: bool
    next_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A signal for a run.

    Attributes:
        value: JSON text.
        idempotency_key: Of two messages with the same key for the same run, the second is not stored.
        token: Random text; a retry after a lost answer recognizes its own message by it.
    """

    run_id: str
    name: str
    value: str
    received_at: datetime
    idempotency_key: str | None = None
    token: str = field(default_factory=lambda: token_hex(TOKEN_BYTES))


class Delivery(StrEnum):
    """The outcome of sending a message.

    `stored`: the run can take it. `duplicate`: its idempotency key was used before; nothing is stored.
    `ended`: the run has completed; nothing is stored. `not_found`: there is no such run.
    """

    STORED = "stored"
    DUPLICATE = "duplicate"
    ENDED = "ended"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Message:
    """A stored signal. `id` increases in the order of arrival; `value` is JSON text."""

    id: int
    name: str
    value: str
    received_at: datetime


@dataclass(slots=True)
class Notice:
    """What was sent to a held run: a stop request, and messages.

    Attributes:
        stop_reason: Reason of a requested stop, or None.
        messages: Messages that no step has taken, in the order of arrival.
    """

    run_id: str
    stop_reason: str | None = None
    messages: Sequence[Message] = ()
