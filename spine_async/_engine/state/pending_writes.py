"""What one run has added and not yet committed.

Theory of operation: settled visits and events are put in here in the order in which they happened. When the journal
takes the ledger into a commit, `draft` numbers everything that is there, and what comes in meanwhile waits for the
next one. Numbers are final only with `confirm`. A draft that was refused leaves the claim as it was, and what was in
it comes before whatever else the run commits, should it get to that: nothing may be stored that leaves out what was
before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

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
    """A visit's row, where there is more to tell of it than its start and its end.

    Attributes:
        is_announced: Whether its `step_started` has been put in already.
        before: Events that come before its end.
        companion: An event that shares its number.
    """

    row: VisitRow
    is_announced: bool
    before: Sequence[EventRow] = ()
    companion: EventRow | None = None


_Entry: TypeAlias = VisitRow | _Settled | EventRow


class Ledger:
    """The uncommitted additions of one run, and its right to commit them.

    Attributes:
        claim: The right.
        open_visits: Step visits that are under way, by path.
        status: State of the run while it has not ended.
        end: The run's end once it has been put in; nothing may follow it.
    """

    def __init__(self, claim: Claim, *, emits: bool) -> None:
        self.claim = claim
        self.open_visits: dict[str, OpenVisit] = {}
        self.status = RunStatus.RUNNING
        self._emits = emits
        self._entries: list[_Entry] = []
        self._drafted: Sequence[_Entry] = ()
        self.end: RunEnd | None = None

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
        if visit.is_announced or visit.events or own_events:
            self._entries.append(_Settled(row, visit.is_announced, [*visit.events, *own_events]))
        else:
            self._entries.append(row)

    def settle_failed(self, visit: OpenVisit, told: Sequence[EventRow]) -> None:
        """A step visit failed and adds no row, only what it has to tell; a resume runs it again."""
        self.abandon(visit)
        self._announce(visit)
        self._entries.extend((*visit.events, *told))

    def keep(self, row: VisitRow, companion: EventRow) -> None:
        """A journal entry that is no visit; it shares the number of the event that tells of it."""
        self._entries.append(_Settled(row, True, companion=companion))

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
        if self.end is None:
            self.end = end
            self._entries.append(EventRow(*_end_event(end)))

    def draft(self, at: datetime, mark: str) -> RunChange:
        """Everything in here, numbered, as one change of this mark; the ledger is empty afterwards."""
        entries, self._entries, self._drafted = self._entries, [], self._entries
        claim = self.claim
        visits, events, next_seq = _number(entries, claim, mark, emits=self._emits)
        return RunChange(  # by position, which takes a third of the time
            claim.run_id,
            claim.key,
            claim.epoch,
            claim.next_seq,
            next_seq,
            mark,
            tuple(visits),
            tuple(events),
            at,
            self.status,
            self.end,
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


def _number(
    entries: Iterable[_Entry], claim: Claim, mark: str, *, emits: bool
) -> tuple[list[VisitRow], list[EventRow], int]:
    """Give the entries their numbers; the rows, the events, and the number that comes next.

    In one go, since every step comes by here.
    """
    visits: list[VisitRow] = []
    events: list[EventRow] = []
    number = claim.next_seq
    for entry in entries:
        row, is_announced, before, companion = _parts(entry)
        if row is not None and emits and not is_announced:
            row.started_seq = number
            number += 1
        if emits:
            for event in before:
                event.seq = number
                number += 1
                events.append(event)
        if row is None:
            continue
        row.seq, row.epoch, row.attempt_id = number, claim.epoch, mark
        visits.append(row)
        if emits and row.ends_item:
            number += 1
            row.item_seq = number
        number += 1
        if emits and companion is not None:
            companion.seq = row.seq
            events.append(companion)
    return visits, events, number


def _parts(entry: _Entry) -> tuple[VisitRow | None, bool, Sequence[EventRow], EventRow | None]:
    """The visit's row, whether its start was told already, what is told before its end, and together with it."""
    if isinstance(entry, VisitRow):
        return entry, False, (), None
    if isinstance(entry, EventRow):
        return None, True, (entry,), None
    return entry.row, entry.is_announced, entry.before, entry.companion


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
