"""Rows of a run store: runs, finished step visits and events.

A journal entry holds only what one step visit added. Each run has one counter: every event takes the next number, and
the `seq` of a visit is the number of its end event.

Only the creator of a row changes it. The rows are not frozen, because a run creates several for each step and a frozen
dataclass takes twice as long to create. The records that users receive are frozen (`history`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from spine_async._model.status import RunStatus, StepStatus, StepType

_OVERRIDE = StepStatus.OVERRIDE  # each step needs it, and Python 3.11 takes 140 ns to look up a member
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)  # every row has a time; a default must follow those of `PastVisit`
TOKEN_BYTES = 6
"""Random bytes in the token of a creation, claim or commit; a retry recognises its earlier write by the token.

A token must be unique within one run only, so 48 bits suffice. Each step row stores one.
"""

ONCE_NAME = "@once"
"""The step name of the row that stores the value of a call of `context.once`; its path is `think/@once:<hash>`."""


@dataclass(slots=True)
class PastVisit:
    """The part of a journal entry that a resume reads to rebuild position, context and metrics.

    Attributes:
        path: Position in the run: `fetch`, `review#3` (third visit), `process_all[17]/resize` (inside a map item).
        duration_ms: Milliseconds from the start to the end of the visit.
        output: JSON text of the output, or None if the step has none.
        output_size: Bytes of the output in UTF-8.
        updates: JSON object text of the changed params, or None.
        quality: JSON object text of the quality metrics, or None.
        item_params: On the first row of a scope with params of its own, JSON object text of these: of a map item, the
            item; of an inline workflow, all its params. `updates` override them. None on other rows.
        error: Error text of a failure, reason of a skip, or None.
        target: For a failure that was caught: the step that the scope continued with, or `END`; else None.
        appends: JSON object text of the elements that were appended to params: an array for each; or None.
    """

    path: str
    step_name: str
    step_type: StepType
    status: StepStatus
    attempts: int
    started_at: datetime
    duration_ms: float
    output: str | None
    output_size: int
    updates: str | None
    quality: str | None
    item_params: str | None
    error: str | None = None
    error_category: str | None = None
    target: str | None = None
    appends: str | None = None


@dataclass(slots=True)
class PastPage:
    """A page of the entries that a resume reads.

    Attributes:
        visits: The entries in the order of their numbers.
        last_seq: Number of the last one; 0 if there is none.
    """

    visits: Sequence[PastVisit]
    last_seq: int


@dataclass(slots=True)
class VisitRow(PastVisit):
    """A finished visit of a step, or one of the two other kinds of journal entries (see `StepStatus`).

    The run fills in the result when the step ends. The journal assigns the numbers when it commits the row.

    Attributes:
        scope: The path before the last slash: empty, `process_all[17]`, or `child` for a workflow step.
        item_index: If the scope is that of a map item, its index; else None.
        ends_item: Whether this is the last visit of its scope, unless the scope is the run.
        records_events: Whether events are derived from this row.
        seq: Number of the end event.
        started_seq: Number of `step_started`, or None if that event is stored separately.
        item_seq: Number of `map_item_completed`, or None.
        epoch: Epoch of the claim that committed the row.
        commit_id: Token of the commit that wrote the row.
    """

    scope: str = ""
    completed_at: datetime = _UNKNOWN
    item_index: int | None = None
    ends_item: bool = False
    records_events: bool = True
    seq: int = 0
    started_seq: int | None = None
    item_seq: int | None = None
    epoch: int = 0
    commit_id: str = ""

    @property
    def is_hidden(self) -> bool:
        """Whether only a query for its scope returns the row: it stores a recorded call, and no item of a map."""
        return self.step_name == ONCE_NAME and self.item_params is None


@dataclass(slots=True)
class EventRow:
    """An event that is stored in a row of its own. `metadata` is JSON object text."""

    event_type: str
    step_name: str | None
    timestamp: datetime
    metadata: str = "{}"
    path: str | None = None
    seq: int = 0


@dataclass(frozen=True, slots=True)
class DueTime:
    """When a run without an owner may be claimed.

    Attributes:
        at: The time.
        seconds: For a time that was given as a duration: the seconds from now. Until the host restarts, they count and
            not `at`, so that setting the wall clock changes nothing.
    """

    at: datetime
    seconds: float | None = None


@dataclass(slots=True)
class NewRun:
    """A run to create. Documents are JSON object texts.

    Attributes:
        initial_outputs: Outputs of the context that was passed to `execute`, by step name.
        initial_quality: Quality metrics of that context, by step name.
        metadata: Metadata of that context.
        start_from: First step of the run, or None for the first in the list.
        params_hash: Digest of the params after defaults and models, and of the start.
        request_hash: Digest of the params as the caller gave them, and of the start; a second `execute` with the same
            id must have the same.
        owner: Identifies the runner that executes the run; None stores a due run, without an event.
        due: For a due run, when it may be claimed; None means now.
        queue: The queue that a due run belongs to; "" for none.
        queue_key: Key within the queue, for limits and fairness, or None.
        priority: Runs with a lower number are claimed first.
        expires_at: A due run that was not claimed before this time is not executed; None for no such time.
        started_by: What created the run: `execute`, `start`, `enqueue`, `fork` or `schedule`; `step` for a child
            of another run.
        traceparent: W3C trace context of the span that created the run, or None.
        parent_run_id: Id of the run whose step started this run, or None.
        records_events: Whether the run records events.
        lease_ttl: Seconds until the lease of the owner expires unless it is renewed.
        commit_id: Random token of this creation; a retry after a lost answer recognises its own run by it.
    """

    run_id: str
    workflow_name: str
    workflow_version: int
    fingerprint: str
    params: str
    params_hash: str
    partition: str | None
    initial_outputs: str
    initial_quality: str
    start_from: str | None
    total_steps: int
    owner: str | None
    created_at: datetime
    records_events: bool = True
    metadata: str = "{}"
    lease_ttl: float = 15.0
    commit_id: str = field(default_factory=lambda: os.urandom(TOKEN_BYTES).hex())
    request_hash: str | None = None
    due: DueTime | None = None
    queue: str = ""
    queue_key: str | None = None
    priority: int = 0
    expires_at: datetime | None = None
    started_by: str = "execute"
    traceparent: str | None = None
    parent_run_id: str | None = None

    @property
    def is_held(self) -> bool:
        """Whether the run is created with an owner, who executes it at once."""
        return self.owner is not None

    @property
    def next_seq(self) -> int:
        """Number of the first event after the creation; a due run has no `workflow_started` event yet."""
        return 2 if self.records_events and self.is_held else 1

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        documents = (self.params, self.partition or "", self.initial_outputs, self.initial_quality, self.metadata)
        return sum(map(len, documents))


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


@dataclass(slots=True)
class RunEnd:
    """Final state of a run. `at` is the time of its end."""

    status: RunStatus
    at: datetime
    error_step: str | None = None
    error: str | None = None
    error_category: str | None = None
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """How an owner releases a run that it does not end.

    Attributes:
        status: `pending` or `waiting`; with `restored` the final status.
        due: When the run may be claimed; None: only a message or an explicit claim makes it due.
        counts: Whether the released claim counts towards `max_claims`.
        awaits_messages: Whether a message that no step has taken makes the run due at once.
        restored: The final state that the run had before it was claimed, or None. No event is stored.
    """

    status: RunStatus = RunStatus.PENDING
    due: DueTime | None = None
    counts: bool = False
    awaits_messages: bool = False
    restored: RunEnd | None = None


@dataclass(slots=True)
class RunChange:
    """Rows that one run adds in one transaction, with their numbers and the fence.

    Attributes:
        expected_seq: Required `next_seq` of the stored run; if it differs, nothing is written.
        next_seq: The new `next_seq` of the stored run.
        commit_id: Random token of this change; a retry after a lost answer recognises its own change by it.
        at: Time of the commit.
        status: State of the run after the change, unless `end` is given.
        end: Final state of the run, or None if it continues.
        size: Approximate size in bytes.
        release: How the owner releases the run with this change, or None if it keeps or ends it.
        taken: Ids of the messages that the visits of the change have taken.
        traceparent: W3C trace context to store with the run, or None to keep the stored one. Only the first change
            after a claim has one.
        notified_run_id: For the end of a run that a step of another run started: the id of that run, which receives a
            message with the name `ended_message(run_id)`. Else None.
    """

    run_id: str
    key: int
    epoch: int
    expected_seq: int
    next_seq: int
    commit_id: str
    visits: tuple[VisitRow, ...]
    events: tuple[EventRow, ...]
    at: datetime
    status: RunStatus = RunStatus.RUNNING
    end: RunEnd | None = None
    size: int = 0
    release: Release | None = None
    taken: tuple[int, ...] = ()
    traceparent: str | None = None
    notified_run_id: str | None = None

    @property
    def makes_progress(self) -> bool:
        """Whether the change contains a finished step; events and param overrides are no progress."""
        for visit in self.visits:  # noqa: SIM110 - the first row decides nearly always, and `any` needs a generator
            if visit.status is not _OVERRIDE:
                return True
        return False


def end_token(change: RunChange) -> str:
    """The token of the message about the end of a run."""
    return f"{change.run_id}:{change.commit_id}"


def ended_message(run_id: str) -> str:
    """Name of the message that a run receives when the run with this id ends, which one of its steps has started."""
    return f"@ended:{run_id}"


@dataclass(slots=True)
class StoredRun:
    """A stored run. Documents are JSON texts.

    Attributes:
        is_leased: Whether the lease of the owner has not expired, by the clock of the store.
        claims_since_progress: Claims that count towards `max_claims`, since a step last finished.
        stop_requested: Reason of a requested stop that no owner has carried out, or None.
        due_at: When the run may be claimed, if it has no owner; None if it has one, or if nothing but a message or an
            explicit claim makes it due.
        traceparent: W3C trace context of the span of its last execution, or of the span that created it; None if
            neither was traced.
        forked_from: Id of the run whose rows it began with, or None.
        key: The store's own key of the run; a run that is created later has a greater key.
    """

    run_id: str
    workflow_name: str
    workflow_version: int
    fingerprint: str
    params: str
    params_hash: str
    partition: str | None
    initial_outputs: str
    initial_quality: str
    start_from: str | None
    total_steps: int
    status: RunStatus
    epoch: int
    owner: str | None
    next_seq: int
    error_step: str | None
    error: str | None
    error_category: str | None
    stop_reason: str | None
    created_at: datetime
    started_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    metadata: str = "{}"
    is_leased: bool = False
    claims_since_progress: int = 0
    request_hash: str | None = None
    queue: str = ""
    queue_key: str | None = None
    priority: int = 0
    due_at: datetime | None = None
    expires_at: datetime | None = None
    started_by: str = "execute"
    parent_run_id: str | None = None
    stop_requested: str | None = None
    traceparent: str | None = None
    forked_from: str | None = None
    key: int = 0

    @classmethod
    def from_new(cls, new: NewRun) -> StoredRun:
        """The stored run right after its creation."""
        is_held = new.is_held
        return cls(
            run_id=new.run_id,
            workflow_name=new.workflow_name,
            workflow_version=new.workflow_version,
            fingerprint=new.fingerprint,
            params=new.params,
            params_hash=new.params_hash,
            partition=new.partition,
            initial_outputs=new.initial_outputs,
            initial_quality=new.initial_quality,
            start_from=new.start_from,
            total_steps=new.total_steps,
            status=RunStatus.RUNNING if is_held else RunStatus.PENDING,
            epoch=1 if is_held else 0,
            owner=new.owner,
            next_seq=new.next_seq,
            error_step=None,
            error=None,
            error_category=None,
            stop_reason=None,
            created_at=new.created_at,
            started_at=new.created_at,
            updated_at=new.created_at,
            completed_at=None,
            metadata=new.metadata,
            request_hash=new.request_hash,
            queue=new.queue,
            queue_key=new.queue_key,
            priority=new.priority,
            due_at=None if is_held else new.due.at if new.due is not None else new.created_at,
            expires_at=new.expires_at,
            started_by=new.started_by,
            traceparent=new.traceparent,
            parent_run_id=new.parent_run_id,
        )
