"""A step visit that has begun, as far as the pending writes need it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from spine_async._model.visit_row import EventRow

if TYPE_CHECKING:
    from spine_async._engine.state.progress_report import ProgressReport


class Slot(Protocol):
    """A concurrency slot: the right of one attempt to execute, while the number of such attempts is limited."""

    def release(self) -> None:
        """Release it; has no effect if it was released before."""
        ...

    async def acquire(self) -> None:
        """Take it again."""
        ...


@dataclass(slots=True, eq=False)
class OpenVisit:
    """A step visit that has begun and not ended.

    Attributes:
        path: Path of the visit in the run: `fetch`, `review#3`, `process_all[17]/resize`.
        events: Events to be written before the end of the visit, such as retries.
        is_announced: Whether its `step_started` event has been added.
        deadline_mono: When the current attempt times out, or None.
        cancelled_mono: For a step that executes others: when it cancelled them because one of them decided it, or None.
        slot: The concurrency slot that the current attempt holds, or None.
        taken: Ids of the messages that it has taken; the commit of its end removes them from the store.
        report: Its progress; None while it has reported none.
        is_stored: Whether a transaction of its step has committed its end; then it is announced too.
    """

    path: str
    step_name: str
    started_at: datetime
    started_mono: float
    events: tuple[EventRow, ...] = field(default=(), init=False)
    is_announced: bool = field(default=False, init=False)
    deadline_mono: float | None = field(default=None, init=False)
    cancelled_mono: float | None = field(default=None, init=False)
    slot: Slot | None = field(default=None, init=False)
    taken: tuple[int, ...] = field(default=(), init=False)
    report: ProgressReport | None = field(default=None, init=False)
    is_stored: bool = field(default=False, init=False)

    def release_slot(self) -> None:
        """Release the concurrency slot of an attempt that is stuck."""
        if self.slot is not None:
            self.slot.release()
