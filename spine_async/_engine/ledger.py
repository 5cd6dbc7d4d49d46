"""What one run has added and not yet committed.

Theory of operation: settled visits and events are put in here in the order in which they happened. When the journal
takes the ledger into a commit, `draft` numbers everything that is there, and what comes in meanwhile waits for the
next one. Numbers are final only with `confirm`. A draft that was refused leaves the claim as it was, and what was in
it comes before whatever else the run commits, should it get to that: nothing may be stored that leaves out what was
before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from spine_async._model.document import encode
from spine_async._model.record import Claim, EventRow, RunChange, RunEnd, VisitRow
from spine_async._model.status import EventType, RunStatus


@dataclass(slots=True)
class OpenVisit:
    """A step visit that is under way.

    Attributes:
        events: What it has to tell before its end, such as retries.
        is_announced: Whether its `step_started` has been put into the ledger already.
        deadline_mono: When the attempt under way times out, or None.
        cancelled_mono: When a map cancelled its items because one failed, or None.
    """

    path: str
    step_name: str
    started_at: datetime
    started_mono: float
    events: tuple[EventRow, ...] = ()
    is_announced: bool = False
    deadline_mono: float | None = None
    cancelled_mono: float | None = None


@dataclass(slots=True)
class _Settled:
    """A visit's row with the events that come before it, and one that shares its number."""

    row: VisitRow
    is_announced: bool
    before: Sequence[EventRow]
    companion: EventRow | None = None


class Ledger:
    """The uncommitted additions of one run, and its right to commit them."""

    def __init__(self, claim: Claim, *, emits: bool) -> None:
        self.claim = claim
        self.open_visits: dict[str, OpenVisit] = {}
        self.status = RunStatus.RUNNING
        self._emits = emits
        self._entries: list[_Settled | EventRow] = []
        self._drafted: Sequence[_Settled | EventRow] = ()
        self._end: RunEnd | None = None

    @property
    def end(self) -> RunEnd | None:
        """The run's end once it has been put in; nothing may follow it."""
        return self._end

    def open(self, visit: OpenVisit) -> None:
        """A step visit begins."""
        self.open_visits[visit.path] = visit

    def abandon(self, visit: OpenVisit) -> None:
        """A step visit is over without anything to keep."""
        self.open_visits.pop(visit.path, None)

    def settle(self, visit: OpenVisit, row: VisitRow, own_events: Sequence[EventRow]) -> None:
        """A step visit is over and adds `row`."""
        self.abandon(visit)
        row.emits = self._emits
        before = [*visit.events, *own_events] if visit.events or own_events else ()
        self._entries.append(_Settled(row, visit.is_announced, before))

    def settle_failed(self, visit: OpenVisit, told: Sequence[EventRow]) -> None:
        """A step visit failed and adds no row, only what it has to tell; a resume runs it again."""
        self.abandon(visit)
        self._announce(visit)
        self._entries.extend((*visit.events, *told))

    def keep(self, row: VisitRow, companion: EventRow) -> None:
        """A journal entry that is no visit; it shares the number of the event that tells of it."""
        self._entries.append(_Settled(row, True, (), companion))

    def note(self, *events: EventRow) -> None:
        """Events that belong to no visit under way."""
        self._entries.extend(events)

    def announce_visit(self, visit: OpenVisit) -> None:
        """Put in `step_started` of a visit that others will write before: a map, ahead of its items."""
        self._announce(visit)

    def announce(self, older_than_mono: float) -> bool:
        """Put in `step_started`, and what else was to be told, of visits under way since before that; whether any."""
        due = [each for each in self.open_visits.values() if each.started_mono <= older_than_mono]
        told = [each for each in due if self._tell(each)]
        return bool(told) and self._emits

    def close(self, end: RunEnd) -> None:
        """The run ends; its end is written with whatever is still in here."""
        if self._end is None:
            self._end = end
            self._entries.append(EventRow(*_end_event(end)))

    def draft(self, at: datetime, mark: str) -> RunChange:
        """Everything in here, numbered, as one change of this mark; the ledger is empty afterwards."""
        entries, self._entries, self._drafted = self._entries, [], self._entries
        numbering = _Numbering(self.claim, mark, emits=self._emits)
        for entry in entries:
            numbering.take(entry)
        claim = self.claim
        return RunChange(  # by position, which takes a third of the time
            claim.run_id,
            claim.key,
            claim.epoch,
            claim.next_seq,
            numbering.next_seq,
            numbering.commit_id,
            tuple(numbering.visits),
            tuple(numbering.events),
            at,
            self.status,
            self._end,
        )

    def discard(self) -> None:
        """Forget everything in here."""
        self._entries.clear()

    def confirm(self, change: RunChange) -> None:
        """The change was committed."""
        self.claim.next_seq = change.next_seq
        self._drafted = ()

    def take_back(self) -> None:
        """What was drafted last was not committed, unless it has been confirmed."""
        drafted, self._drafted = self._drafted, ()
        self._entries[:0] = drafted

    def _tell(self, visit: OpenVisit) -> bool:
        is_news = not visit.is_announced or bool(visit.events)
        self._announce(visit)
        self._entries.extend(visit.events)
        visit.events = ()
        return is_news

    def _announce(self, visit: OpenVisit) -> None:
        if not visit.is_announced:
            visit.is_announced = True
            self._entries.append(EventRow(EventType.STEP_STARTED, visit.step_name, visit.started_at, path=visit.path))


class _Numbering:
    """Hands out the numbers of one change."""

    def __init__(self, claim: Claim, commit_id: str, *, emits: bool) -> None:
        self.next_seq = claim.next_seq
        self.commit_id = commit_id
        self.visits: list[VisitRow] = []
        self.events: list[EventRow] = []
        self._emits = emits
        self._epoch = claim.epoch

    def take(self, entry: _Settled | EventRow) -> None:
        if isinstance(entry, _Settled):
            self._settled(entry)
        else:
            self._event(entry)

    def _settled(self, entry: _Settled) -> None:
        row, number = entry.row, self.next_seq
        if not entry.is_announced and self._emits:
            row.started_seq = number
            number += 1
        if entry.before:
            self.next_seq = number
            for event in entry.before:
                self._event(event)
            number = self.next_seq
        row.seq = number
        row.epoch, row.attempt_id = self._epoch, self.commit_id
        if row.ends_item and self._emits:
            number += 1
            row.item_seq = number
        self.next_seq = number + 1
        self.visits.append(row)
        if entry.companion is not None and self._emits:
            entry.companion.seq = row.seq
            self.events.append(entry.companion)

    def _event(self, event: EventRow) -> None:
        if self._emits:
            event.seq = self.next_seq
            self.next_seq += 1
            self.events.append(event)


def _end_event(end: RunEnd) -> tuple[str, str | None, datetime, str]:
    told: Mapping[str, object] = {
        "error_step": end.error_step,
        "error": end.error,
        "error_category": end.error_category,
        "reason": end.stop_reason,
    }
    known = {key: value for key, value in told.items() if value is not None}
    return _END_EVENTS[end.status], None, end.at, encode(known).text if known else "{}"


_END_EVENTS = {
    RunStatus.COMPLETED: EventType.WORKFLOW_COMPLETED,
    RunStatus.FAILED: EventType.WORKFLOW_FAILED,
    RunStatus.STOPPED: EventType.WORKFLOW_STOPPED,
}
