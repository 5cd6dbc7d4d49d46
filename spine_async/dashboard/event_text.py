"""What a page shows of an event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spine_async._model.history import Event
from spine_async._model.status import EventType
from spine_async.dashboard.access import Permission
from spine_async.dashboard.formatting import as_line
from spine_async.web.documents import metadata_without_values

_KINDS = {
    "completed": "good",
    "failed": "bad",
    "stopped": "bad",
    "retrying": "warn",
    "rejected": "warn",
    "skipped": "quiet",
}


@dataclass(frozen=True, slots=True)
class EventText:
    """An event as a page shows it.

    Attributes:
        tone: Class of its mark: `good`, `bad`, `warn`, `own` for an emitted event, or `quiet`.
        details: Its metadata on one line.
        hides: Whether a part of them is hidden.
    """

    seq: int
    event_type: str
    tone: str
    path: str | None
    timestamp: datetime
    details: str
    hides: bool


def describe(event: Event, permission: Permission) -> EventText:
    """What this visitor is shown of the event."""
    known = {name: value for name, value in event.metadata.items() if name != "traceback"}  # the page of the run has it
    shown = known if permission.sees_values else metadata_without_values(event)
    return EventText(
        event.seq,
        event.event_type,
        _tone(event.event_type),
        event.path,
        event.timestamp,
        as_line(shown) if shown else "",
        hides=len(shown) < len(known),
    )


def _tone(event_type: str) -> str:
    if event_type not in _OWN:
        return "own"
    return _KINDS.get(event_type.rpartition("_")[2], "quiet")


_OWN = frozenset(EventType)
