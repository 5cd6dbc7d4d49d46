"""What a store keeps: runs, finished step visits and events, as plain rows.

A journal entry holds only what one step visit added. Numbers are taken from one counter per run: each event has the
next number, and a visit's `seq` is the number of the event that tells of its end.

What goes to a store and comes from it is changed by nobody but who made it. It is not frozen all the same: a run makes
several rows for each step, and a frozen one takes twice as long to make. What users get to see is frozen (`archive`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_hex

from spine_async._model.status import RunStatus, StepStatus, StepType

TOKEN_BYTES = 6
"""Random bytes in the token of a creation, claim or commit, by which a retry finds what it wrote before.

A token must be unique within one run only, so 48 bits suffice; the row of every step stores one.
"""


@dataclass(slots=True)
class PastVisit:
    """What a resume reads of a journal entry: enough to be in the place where the run was, and to tell of it.

    Attributes:
        path: Where in the run: `fetch`, `review#3` (third visit), `process_all[17]/resize` (inside a map's item).
        output: JSON text of the output, or None where the step has none.
        updates: JSON object text of what changed in the params, or None.
        quality: JSON object text of the quality metrics, or None.
        opening: On the first row of a map item, JSON object text of the params its scope began with (the item), which
            `updates` are laid over; else None.
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
    opening: str | None


@dataclass(slots=True)
class VisitRow(PastVisit):
    """One finished visit of a step, or one of the two journal entries that are no visits (`StepStatus`).

    Filled in two goes: by the run when the step settles, and with its numbers when the journal commits it.

    Attributes:
        scope: The path up to the last slash: `` or `process_all[17]`.
        error: Error text of a failure, reason of a skip, else None.
        item_index: Index of the innermost map item the visit belongs to, or None.
        ends_item: Whether this visit was its item's last.
        emits: Whether the visit tells of itself in events.
        seq: Number of the event of its end.
        started_seq: Number of its `step_started`, or None where that was stored as an event of its own.
        item_seq: Number of its `map_item_completed`, or None.
    """

    scope: str
    completed_at: datetime
    error: str | None = None
    error_category: str | None = None
    item_index: int | None = None
    ends_item: bool = False
    emits: bool = True
    seq: int = 0
    started_seq: int | None = None
    item_seq: int | None = None
    epoch: int = 0
    attempt_id: str = ""


@dataclass(slots=True)
class EventRow:
    """One event that is stored as such. `metadata` is JSON object text."""

    event_type: str
    step_name: str | None
    timestamp: datetime
    metadata: str = "{}"
    path: str | None = None
    seq: int = 0


@dataclass(slots=True)
class NewRun:
    """A run about to be created. Documents are JSON object texts.

    Attributes:
        initial_outputs: Outputs of a context that the run started from, by step name.
        metadata: Metadata of such a context.
        start_from: Step the run started at, or None for the first.
        params_hash: Digest of params and start, by which a second `execute` with the same id is compared.
        owner: Who executes it.
        lease_ttl: Seconds for which it is the owner's without being renewed.
        commit_id: Random mark of this creation, by which it is found again when its outcome was not heard.
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
    owner: str
    created_at: datetime
    emits: bool = True
    metadata: str = "{}"
    lease_ttl: float = 15.0
    commit_id: str = field(default_factory=lambda: token_hex(TOKEN_BYTES))


@dataclass(slots=True)
class Claim:
    """The right to commit to a run, as long as nobody claims it anew.

    Attributes:
        key: The store's own short key for the run.
        epoch: Number of the claim; a commit of an older one is refused.
        next_seq: Number that the next event of the run takes.
        lease_until_mono: When the lease ends by the owner's monotonic clock; set by the engine, of no use to stores.
    """

    run_id: str
    key: int
    epoch: int
    next_seq: int
    lease_until_mono: float = field(default=math.inf, compare=False, repr=False)


@dataclass(slots=True)
class Busy:
    """A claim was refused: the run is somebody else's.

    Attributes:
        epoch: The owner's epoch; a claim may be made over exactly this one where the owner is known to be gone.
        lease_until: When the owner's lease ends unless it is renewed, or None where that is not known.
    """

    owner: str
    epoch: int
    lease_until: datetime | None


@dataclass(slots=True)
class Renewal:
    """The result of renewing one lease.

    Attributes:
        is_held: Whether the claim is still current.
        stop_reason: The reason of a requested stop, or None.
        is_extended: Whether the lease ends later now; False if another transaction has locked the run's row.
    """

    is_held: bool
    stop_reason: str | None = None
    is_extended: bool = True


@dataclass(slots=True)
class RunEnd:
    """How a run ended."""

    status: RunStatus
    at: datetime
    error_step: str | None = None
    error: str | None = None
    error_category: str | None = None
    stop_reason: str | None = None


@dataclass(slots=True)
class RunChange:
    """What one run adds in one transaction, numbered and fenced.

    Attributes:
        expected_seq: `next_seq` the stored run must have, or nothing is written.
        next_seq: What it becomes.
        commit_id: Random mark of this change, by which it is found again when its outcome was not heard.
        status: State the run is in afterwards while it has not ended.
        end: How the run ended, or None.
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

    @property
    def makes_progress(self) -> bool:
        """Whether the run is further than before; events and what a resume overrides come before any step ends."""
        for visit in self.visits:  # noqa: SIM110 (the first one says it nearly always; `any` makes a generator for it)
            if visit.status is not StepStatus.OVERRIDE:
                return True
        return False


@dataclass(slots=True)
class StoredRun:
    """A run as the store has it, documents still as JSON text."""

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

    @classmethod
    def from_new(cls, new: NewRun) -> StoredRun:
        """The run as a store has it right after its creation."""
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
            status=RunStatus.RUNNING,
            epoch=1,
            owner=new.owner,
            next_seq=2 if new.emits else 1,
            error_step=None,
            error=None,
            error_category=None,
            stop_reason=None,
            created_at=new.created_at,
            started_at=new.created_at,
            updated_at=new.created_at,
            completed_at=None,
            metadata=new.metadata,
        )


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list, and how many. Everything that is None does not restrict.

    Attributes:
        before: Only runs created before the run of this id, which continues a listing; newest come first.
        is_under_way: True for runs that are running or waiting only.
        is_leased: True for runs whose owner's lease holds, False for those without an owner or whose lease has ended.
    """

    workflow_name: str | None = None
    status: RunStatus | None = None
    before: str | None = None
    limit: int = 100
    is_under_way: bool = False
    is_leased: bool | None = None
