"""One run of the memory store: what it keeps, and how calls of the store change it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from spine_async._model.due import (
    DueRequest,
    DueRun,
    Message,
    RunState,
)
from spine_async._model.queue import LISTED_FOR
from spine_async._model.run_change import Release, RunChange, RunEnd
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import DueTime, StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.visit_row import EventRow
from spine_async.ports import Clock
from spine_async.storage.packing import PackedVisits

_HELD = frozenset({RunStatus.RUNNING, RunStatus.WAITING})
"""Statuses that a held run can have."""


@dataclass(slots=True, kw_only=True)
class MemoryRun:
    """One run with its visits and events.

    Attributes:
        stored: The run when it was created or last claimed.
        creation_id: `commit_id` of the creation.
        lease_end: Monotonic time in seconds.
        change: The last change committed since `stored`, or None. `run` combines both.
        has_progressed: Whether a step has ended since `stored`.
        claim_token: Token of the last claim by `claim_due`.
        due_mono: Monotonic time from which a worker may claim the run; None if it is held, or if only a message or an
            explicit claim makes it due.
        is_ready: Whether a sweep has found that it is due.
        has_news: Whether a message arrived that no sweep has seen since the run has no owner.
        turn: Orders the ready runs of one priority.
        messages: The messages that no step has taken.
        known_keys: The idempotency keys and tokens of all messages.
    """

    key: int
    stored: StoredRun
    creation_id: str
    lease_end: float
    clock: Clock
    stop_requested: str | None = None
    claim_token: str | None = None
    due_mono: float | None = None
    is_ready: bool = False
    has_news: bool = False
    turn: float = 0.0
    messages: list[Message] = field(default_factory=list)
    known_keys: dict[str, str] = field(default_factory=dict)
    change: RunChange | None = None
    has_progressed: bool = False
    visits: PackedVisits = field(default_factory=PackedVisits)
    events: list[EventRow] = field(default_factory=list)

    @property
    def run(self) -> StoredRun:
        """The run in its current state."""
        change = self.change
        run = self.stored if change is None else _changed(self.stored, change, has_progressed=self.has_progressed)
        return replace(run, stop_requested=None if run.status.is_final else self.stop_requested)

    @property
    def next_seq(self) -> int:
        return self.stored.next_seq if self.change is None else self.change.next_seq

    @property
    def status(self) -> RunStatus:
        change = self.change
        if change is None:
            return self.stored.status
        if change.release is not None:
            return change.release.status
        return change.status if change.end is None else change.end.status

    @property
    def is_held(self) -> bool:
        """Whether an owner may commit to it."""
        has_owner = self.stored.owner is not None and (self.change is None or self.change.release is None)
        return has_owner and self.status in _HELD

    def add(self, change: RunChange) -> None:
        """Apply a change. Its rows are copied: their creator may number them once more if it gets no answer."""
        self.visits.extend([replace(row) for row in change.visits])
        self.events.extend(replace(row) for row in change.events)
        if change.taken:
            self.messages = [each for each in self.messages if each.id not in change.taken]
            self.has_news = self.has_news and bool(self.messages)
        self.has_progressed = self.has_progressed or change.makes_progress
        if change.traceparent is not None:
            self.stored = replace(self.stored, traceparent=change.traceparent)
        if change.definition is not None:
            self.stored = replace(self.stored, **asdict(change.definition))
        self.change = change
        if change.end is not None:
            self.is_ready, self.stop_requested = False, None
        if change.release is not None:
            given = change.release
            self.become_due(given.due, awaits_messages=given.awaits_messages, ignores_stop=given.ignores_stop)

    def become_due(self, due: DueTime | None, *, awaits_messages: bool, ignores_stop: bool = False) -> None:
        """Set when a run without an owner may be claimed."""
        now = self.clock.now()
        seconds = None if due is None else due.seconds if due.seconds is not None else (due.at - now).total_seconds()
        self.due_mono = None if seconds is None else self.clock.monotonic() + seconds
        self.turn = now.timestamp() if due is None else due.at.timestamp()
        self.is_ready = seconds is not None and seconds <= 0
        is_asked = self.stop_requested is not None and not ignores_stop
        is_wanted = is_asked or (awaits_messages and self.messages)
        if not self.is_ready and is_wanted:
            self.become_ready()

    def become_ready(self) -> None:
        """Let workers claim the run, after those that are ready."""
        self.is_ready, self.turn = True, self.clock.now().timestamp()


def passes_fence(found: MemoryRun, change: RunChange) -> bool:
    """Whether the change has the epoch and the number of the run, and an owner holds it."""
    current = (found.key, found.stored.epoch, found.next_seq)
    return current == (change.key, change.epoch, change.expected_seq) and found.is_held


def claim_of(found: MemoryRun) -> Claim:
    """The claim of the current owner."""
    return Claim(run_id=found.stored.run_id, key=found.key, epoch=found.stored.epoch, next_seq=found.next_seq)


def lease_holder(found: MemoryRun) -> str | None:
    """The owner whose lease is valid, or None."""
    return found.stored.owner if found.lease_end > found.clock.monotonic() and found.is_held else None


def with_lease(found: MemoryRun) -> StoredRun:
    """The run in its current state; `is_leased` is that of this moment."""
    return replace(found.run, is_leased=lease_holder(found) is not None)


def claimed(run: StoredRun, owner: str, event: EventRow | None) -> StoredRun:
    """The run after a claim."""
    return replace(
        run,
        status=RunStatus.RUNNING,
        epoch=run.epoch + 1,
        owner=owner,
        next_seq=run.next_seq + (event is not None),
        error_step=None,
        error=None,
        error_category=None,
        stop_reason=None,
        updated_at=event.timestamp if event is not None else run.updated_at,
        completed_at=None,
        due_at=None,
        claims_since_progress=_claims_after(run),
    )


def _claims_after(run: StoredRun) -> int:
    """`claims_since_progress` after a claim. A run that waits cannot be the cause of the death of its owner."""
    if run.status.is_final:
        return 1
    return run.claims_since_progress + (run.owner is not None and run.status is RunStatus.RUNNING)


def claim_for(found: MemoryRun, request: DueRequest) -> DueRun:
    """Claim a ready run for a worker."""
    before = with_lease(found)
    version = before.workflow_version or request.workflows[before.workflow_name]
    started_at = request.at if before.epoch == 0 else before.started_at
    found.stored, found.change, found.has_progressed = claimed(before, request.owner, None), None, False
    status = before.status if before.status is RunStatus.WAITING else RunStatus.RUNNING
    found.stored = replace(
        found.stored, status=status, started_at=started_at, updated_at=request.at, workflow_version=version
    )
    found.lease_end, found.claim_token = found.clock.monotonic() + request.ttl, request.token
    due_in = found.due_mono - found.clock.monotonic() if found.due_mono is not None else None
    found.due_mono, found.is_ready = None, False
    return DueRun(before, claim_of(found), due_in)


def is_claimable(found: MemoryRun, request: DueRequest) -> bool:
    """Whether the request of a worker may claim it."""
    run = found.run
    is_free = not run.status.is_final and found.claim_token != request.token
    is_known = run.workflow_version <= request.workflows.get(run.workflow_name, -1)
    return is_free and is_known and found.is_ready and (not run.queue or run.queue in request.queues)


def is_parked(found: MemoryRun) -> bool:
    """Whether it waits without an owner and is not due."""
    return found.run.owner is None and not found.is_ready and found.status is RunStatus.WAITING


def is_new_with_key(found: MemoryRun, place: tuple[str, int]) -> bool:
    """Whether it is a ready run with a key that was never claimed, of this queue and priority."""
    run = found.stored
    return found.is_ready and run.epoch == 0 and run.queue_key is not None and (run.queue, run.priority) == place


def waits_for_a_minute(found: MemoryRun) -> bool:
    """Whether it is a ready run of a queue that nobody has claimed for a minute."""
    is_late = found.due_mono is not None and found.clock.monotonic() - found.due_mono >= LISTED_FOR
    return bool(found.stored.queue) and found.is_ready and is_late


def turn(found: MemoryRun) -> tuple[object, ...]:
    """Its place in the order of claims."""
    run = found.run
    return run.priority, run.epoch == 0, found.turn, found.key


def state(found: MemoryRun) -> RunState:
    """Its state without documents."""
    run = with_lease(found)
    is_free = run.owner is None and not run.status.is_final
    is_now = found.is_ready or (found.due_mono is not None and found.due_mono <= found.clock.monotonic())
    return RunState(run.run_id, run.status, run.epoch, run.owner, run.is_leased, is_free and is_now, run.next_seq)


def sweep_due(found: MemoryRun, now_mono: float) -> None:
    """Make a run without an owner ready if it is due."""
    if found.due_mono is not None and found.due_mono <= now_mono:
        found.is_ready = True
    elif found.has_news and found.status is RunStatus.WAITING:
        found.become_ready()
    found.has_news = False


def released(run: StoredRun, release: Release) -> StoredRun:
    """The run after its owner has released it."""
    claims = run.claims_since_progress + release.counts
    due_at = release.due.at if release.due is not None else None
    released = replace(run, status=release.status, owner=None, claims_since_progress=claims, due_at=due_at)
    return released if release.restored is None else _ended(released, release.restored)


def _changed(run: StoredRun, change: RunChange, *, has_progressed: bool) -> StoredRun:
    claims = 0 if has_progressed else run.claims_since_progress
    moved = replace(
        run, next_seq=change.next_seq, status=change.status, updated_at=change.at, claims_since_progress=claims
    )
    if change.release is not None:
        return released(moved, change.release)
    return moved if change.end is None else _ended(moved, change.end)


def _ended(run: StoredRun, end: RunEnd) -> StoredRun:
    return replace(
        run,
        status=end.status,
        owner=None,
        error_step=end.error_step,
        error=end.error,
        error_category=end.error_category,
        stop_reason=end.stop_reason,
        completed_at=end.at,
    )
