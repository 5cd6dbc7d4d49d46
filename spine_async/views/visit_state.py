"""The state of one visit of a step, as the events of its run change it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from spine_async._model.history import Event
from spine_async._model.progress import Progress
from spine_async._model.status import EventType, StepType


class VisitState(StrEnum):
    """State of a visit of a step.

    `retrying`: an attempt failed and another one follows. `interrupted`: the visit did not end, because its run
    ended or its process died, or because a sibling decided the outcome.
    """

    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_open(self) -> bool:
        """Whether the visit has not ended."""
        return self in _OPEN


_OPEN = frozenset({VisitState.RUNNING, VisitState.WAITING, VisitState.RETRYING})

_ENDS: Mapping[str, VisitState] = {
    EventType.STEP_COMPLETED: VisitState.COMPLETED,
    EventType.STEP_FAILED: VisitState.FAILED,
    EventType.STEP_SKIPPED: VisitState.SKIPPED,
}

STEP_EVENTS = frozenset({EventType.STEP_STARTED, EventType.STEP_PROGRESS, EventType.STEP_RETRYING, *_ENDS})
"""The events that change the state of a visit."""


@dataclass(slots=True)
class Visit:
    """One visit.

    Attributes:
        duration: Seconds, as the end event reports them; None before.
        entries: Of a map or a parallel step: whether an item or branch has failed, by its path.
        scopes: The visits directly inside of this one, by their scope: the path before the last slash.
    """

    path: str
    step_name: str
    started_at: datetime
    kind: str | None = None
    status: VisitState = VisitState.RUNNING
    attempt: int = 1
    ended_at: datetime | None = None
    duration: float | None = None
    error: str | None = None
    error_category: str | None = None
    waits_for: str | None = None
    progress: Progress | None = None
    entries: dict[str, bool] = field(default_factory=dict)
    scopes: dict[str, list[Visit]] = field(default_factory=dict)

    @property
    def inner(self) -> Iterator[Visit]:
        """The visits directly inside of this one, scope by scope."""
        for visits in self.scopes.values():
            yield from visits

    @property
    def descendants(self) -> Iterator[Visit]:
        """All visits inside of this one."""
        for each in self.inner:
            yield each
            yield from each.descendants

    @property
    def is_notable(self) -> bool:
        """Whether somebody who watches the run wants to see it first."""
        return self.status.is_open or self.status is VisitState.FAILED

    def change(self, event: Event) -> None:
        """Apply one of the `STEP_EVENTS`."""
        if event.event_type == EventType.STEP_STARTED:
            self._start(event)
        elif event.event_type == EventType.STEP_PROGRESS:
            self.progress = _progress(event.metadata)
        elif event.event_type == EventType.STEP_RETRYING:
            self.status, self.attempt = VisitState.RETRYING, _number(event.metadata, "attempt") + 1
            self._set_error(event.metadata)
        else:
            self._end(event)
            interrupt(self.descendants, event.timestamp)

    def _start(self, event: Event) -> None:
        """Begin the visit, or begin it again after a crash or a resume."""
        self.started_at, self.ended_at, self.duration = event.timestamp, None, None
        self.error, self.error_category, self.progress = None, None, None
        self.attempt, self.status, self.waits_for = 1, VisitState.RUNNING, _wait(event.metadata)
        if self.waits_for is not None:
            self.status, self.kind = VisitState.WAITING, _waiting_kind(event.metadata)

    def _end(self, event: Event) -> None:
        self.status, self.ended_at, self.waits_for = _ENDS[event.event_type], event.timestamp, None
        if self.status is VisitState.SKIPPED:
            self.attempt, self.duration, self.error = 0, 0.0, _text(event.metadata, "reason")
            return
        self.attempt = _number(event.metadata, "attempts")
        milliseconds = event.metadata.get("duration_ms")
        self.duration = milliseconds / 1000 if isinstance(milliseconds, int | float) else None
        self._set_error(event.metadata)

    def _set_error(self, metadata: Mapping[str, object]) -> None:
        self.error, self.error_category = _text(metadata, "error"), _text(metadata, "error_category")


def interrupt(visits: Iterable[Visit], at: datetime, *, keeps_waits: bool = False) -> None:
    """Mark the visits that have not ended as interrupted; with `keeps_waits` all but the waiting ones."""
    for visit in visits:
        if visit.status.is_open and not (keeps_waits and visit.status is VisitState.WAITING):
            visit.status, visit.ended_at, visit.waits_for = VisitState.INTERRUPTED, at, None


def _wait(metadata: Mapping[str, object]) -> str | None:
    """What a visit that starts waits for; None if it does not wait."""
    if "child_run_id" in metadata:
        return f"run {metadata['child_run_id']}"
    until = _text(metadata, "until")
    if "signal" in metadata:
        limit = f" until {until}" if until is not None else ""
        return f"signal {metadata['signal']}{limit}"
    return None if until is None else f"until {until}"


def _waiting_kind(metadata: Mapping[str, object]) -> StepType:
    if "child_run_id" in metadata:
        return StepType.WORKFLOW
    return StepType.SIGNAL if "signal" in metadata else StepType.WAIT


def _progress(metadata: Mapping[str, Any]) -> Progress:
    return Progress(metadata["done"], metadata.get("total"), metadata.get("message"))


def _number(metadata: Mapping[str, object], name: str) -> int:
    value = metadata.get(name)
    return value if isinstance(value, int) else 1


def _text(metadata: Mapping[str, object], name: str) -> str | None:
    value = metadata.get(name)
    return value if isinstance(value, str) else None
