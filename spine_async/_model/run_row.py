"""The row of a run: as it is created, and as it is stored."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime

from spine_async._model.status import RunStatus

TOKEN_BYTES = 6
"""Random bytes in the token of a creation, claim or commit; a retry recognises its earlier write by the token.

A token must be unique within one run only, so 48 bits suffice. Each step row stores one.
"""


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
