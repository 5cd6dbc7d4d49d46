"""What one transaction adds to a run: rows, and its end or its release.

A change is not frozen, because each step has one and a frozen dataclass takes twice as long to create.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spine_async._model.run_row import DueTime
from spine_async._model.status import RunStatus, StepStatus
from spine_async._model.visit_row import EventRow, VisitRow

_OVERRIDE = StepStatus.OVERRIDE  # each step needs it, and Python 3.11 takes 140 ns to look up a member


@dataclass(slots=True)
class RunEnd:
    """Final state of a run. `at` is the time of its end."""

    status: RunStatus
    at: datetime
    error_step: str | None = None
    error: str | None = None
    error_category: str | None = None
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class RunDefinition:
    """What a run that was enqueued by the name of its workflow learns of the definition when it begins."""

    workflow_version: int
    fingerprint: str
    total_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """How an owner releases a run that it does not end.

    Attributes:
        status: `pending` or `waiting`; with `restored` the final status.
        due: When the run may be claimed; None: only a message or an explicit claim makes it due.
        counts: Whether the released claim counts towards `max_claims`.
        awaits_messages: Whether a message that no step has taken makes the run due at once.
        restored: The final state that the run had before it was claimed, or None. No event is stored.
        ignores_stop: Whether a request to stop the run does not make it due at once, although it is kept: this owner
            has nothing to do for it. Otherwise it does, because the owner may not have seen it.
    """

    status: RunStatus = RunStatus.PENDING
    due: DueTime | None = None
    counts: bool = False
    awaits_messages: bool = False
    restored: RunEnd | None = None
    ignores_stop: bool = False


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
        definition: What to store of the definition, or None to keep what is stored. Only a run that was enqueued by the
            name of its workflow has one, with its first change.
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
    definition: RunDefinition | None = None

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
