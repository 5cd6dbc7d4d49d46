"""The uncommitted rows of one run.

Theory of operation: finished visits and events are added in the order in which they happen. When the journal begins a
commit, `drain` removes the entries and numbers them. Entries that are added during the commit wait for the next one.
`committed` makes the numbers final. After a failed commit, `restore` puts the drained entries back in front. So no row
is ever stored without the rows that precede it. A change is bounded in size: `drain` leaves the entries beyond the
bound for the next change. The last change contains the run's end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from spine_async._clock import SystemClock
from spine_async._engine.state.open_visit import OpenVisit
from spine_async._engine.state.wall_clock import RunClock
from spine_async._model.document import encode
from spine_async._model.run_change import Release, RunChange, RunDefinition, RunEnd
from spine_async._model.run_claim import Claim
from spine_async._model.status import EventType, RunStatus
from spine_async._model.visit_row import EventRow, VisitRow


@dataclass(slots=True)
class _RowWithEvents:
    """A row that is written with events other than its own start and end.

    Attributes:
        is_announced: Whether its `step_started` event has been added before.
        before: Events that precede its end.
        end_event: An event that shares the row's number.
        taken: Ids of the messages that the visit has taken.
    """

    row: VisitRow
    is_announced: bool
    before: Sequence[EventRow] = ()
    end_event: EventRow | None = None
    taken: tuple[int, ...] = ()


_Entry: TypeAlias = VisitRow | _RowWithEvents | EventRow


class PendingWrites:
    """Buffers the uncommitted rows of a run, together with the claim that is required to commit them.

    Args:
        claim: The claim.
        records_events: Whether the run records events.
        clock: The clock of the run; None for the clock of the host.

    Attributes:
        open_visits: Step visits that have begun and not ended, by path.
        status: Status of the run while it has not ended.
        end: The run's end, once it was added; nothing may be added after it.
        release: How the owner releases the run, once it does; it is part of the last change.
        has_taken: Whether a visit of the run has ever taken a message.
        records_events: Whether the run records events.
        parent_run_id: Id of the run that receives a message about the end, or None.
        kept: The rows that were discarded because nothing is stored, if compensations need them; else None.
        traceparent: The trace context to store with the next change, or None. A run that completes stores none, because
            nothing continues it.
        definition: What to store of the definition with the next change, or None.
    """

    def __init__(self, claim: Claim, *, records_events: bool, clock: RunClock | None = None) -> None:
        self.claim = claim
        self.clock = clock or RunClock(SystemClock())
        self.open_visits: dict[str, OpenVisit] = {}
        self.status = RunStatus.RUNNING
        self.end: RunEnd | None = None
        self.release: Release | None = None
        self.has_taken = False
        self.traceparent: str | None = None
        self.parent_run_id: str | None = None
        self.definition: RunDefinition | None = None
        self.records_events = records_events
        self.kept: list[VisitRow] | None = None
        self._entries: list[_Entry] = []
        self._drained: Sequence[_Entry] = ()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether the end or the release of the run is committed, and nothing is left to write."""
        return self._is_over and not self._entries

    def begin_visit(self, visit: OpenVisit) -> None:
        """Add a visit to `open_visits`."""
        self.open_visits[visit.path] = visit

    def drop_visit(self, visit: OpenVisit) -> None:
        """Remove a visit from `open_visits` without writing anything."""
        self.open_visits.pop(visit.path, None)

    def add_visit(self, visit: OpenVisit, row: VisitRow, own_events: Sequence[EventRow]) -> None:
        """Add the row of a visit that has ended, unless it is stored."""
        self.open_visits.pop(visit.path, None)
        row.records_events = self.records_events
        if visit.is_announced or visit.events or own_events or visit.taken:
            if visit.is_stored:
                return
            self.has_taken = self.has_taken or bool(visit.taken)
            before = [*visit.events, *own_events]
            self._entries.append(_RowWithEvents(row, visit.is_announced, before, taken=visit.taken))
        else:
            self._entries.append(row)

    def add_failed_visit(self, visit: OpenVisit, events: Sequence[EventRow]) -> None:
        """Add the events of a visit that failed the run. It has no row, so a resume runs it again."""
        self.open_visits.pop(visit.path, None)
        self._announce(visit)
        self._entries.extend((*visit.events, *events))

    def add_marker(self, row: VisitRow, event: EventRow, taken: tuple[int, ...] = ()) -> None:
        """Add a row that is no visit, with the event that reports it; both have the same number.

        Args:
            row: The row.
            event: The event.
            taken: Ids of messages that are removed from the store with the commit of the row.
        """
        self.has_taken = self.has_taken or bool(taken)
        self._entries.append(_RowWithEvents(row, is_announced=True, end_event=event, taken=taken))

    def add_events(self, *events: EventRow) -> None:
        """Add events that belong to no open visit."""
        self._entries.extend(events)

    def announce_visit(self, visit: OpenVisit) -> None:
        """Add the `step_started` event of a step that executes others, which must precede their rows."""
        self._announce(visit)

    def announce_visits(self, older_than_mono: float) -> bool:
        """Add `step_started` and waiting events of visits that began before that time; returns whether any exist."""
        due = [each for each in self.open_visits.values() if each.started_mono <= older_than_mono]
        announced = [each for each in due if self._add_waiting_events(each)]
        return bool(announced) and self.records_events

    def flush_visit(self, visit: OpenVisit) -> None:
        """Add the waiting events of a visit, with its start."""
        self._add_waiting_events(visit)

    def close(self, end: RunEnd) -> None:
        """Add the run's end, unless it has one. It is committed with everything that was added before."""
        if self.end is None:
            self.end = end
            if end.status is RunStatus.COMPLETED:
                self.traceparent = None
            self._entries.append(_end_event(end))

    def give_up(self, release: Release, end: RunEnd) -> None:
        """Release the run with the next commit, unless it has an end.

        Args:
            release: How the run is released.
            end: What the callers of this execution receive; it is not stored.
        """
        if self.end is None:
            self.end, self.release = end, release

    @property
    def entry_count(self) -> int:
        """Number of entries that are not drained."""
        return len(self._entries)

    @property
    def drained_count(self) -> int:
        """Number of entries in the change that was drained last, until it is committed."""
        return len(self._drained)

    def drain(self, at: datetime, token: str, most_bytes: float = math.inf) -> RunChange:
        """Remove entries and return them as one numbered change with this token as its `commit_id`.

        Args:
            at: Time of the commit.
            token: Random text.
            most_bytes: Entries are removed until they exceed this size; at least one is removed.
        """
        entries = self._entries
        rest: list[_Entry]
        if len(entries) == 1:  # nearly always; a single entry is written whatever its size
            rest, size = [], _size(entries[0])
        else:
            entries, rest, size = _split(entries, most_bytes)
        self._entries, self._drained = rest, entries
        claim, latest, release = self.claim, self.clock.latest, self.release
        visits, events, next_seq = _number(entries, claim, token, records_events=self.records_events)
        return RunChange(  # positional: keywords take three times as long, and each step of most runs has a change
            claim.run_id,
            claim.key,
            claim.epoch,
            claim.next_seq,
            next_seq,
            token,
            tuple(visits),
            tuple(events),
            max(latest, at),
            self.status,
            None if rest or release is not None else self.end,
            size,
            None if rest else release,
            tuple(_taken(entries)) if self.has_taken else _NONE_TAKEN,
            self.traceparent,
            None if self.end is None or rest or release is not None else self.parent_run_id,
            self.definition,
        )

    def committed(self, change: RunChange) -> None:
        """Accept the numbers of a change that was committed."""
        self.claim.next_seq = change.next_seq
        self.traceparent = self.definition = None
        self._drained = ()
        self._is_over = change.end is not None or change.release is not None

    def restore(self) -> None:
        """Put the entries of a failed commit back in front; has no effect after `committed`."""
        drained, self._drained = self._drained, ()
        self._entries[:0] = drained

    def remove_entries(self, first: int, count: int) -> None:
        """Remove entries that must not be committed.

        Args:
            first: How many entries precede them.
            count: How many they are.
        """
        del self._entries[first : first + count]

    def clear(self) -> None:
        """Remove all entries."""
        if self.kept is not None:
            rows = (each.row if isinstance(each, _RowWithEvents) else each for each in self._entries)
            self.kept.extend(row for row in rows if isinstance(row, VisitRow))
        self._entries.clear()

    def _add_waiting_events(self, visit: OpenVisit) -> bool:
        has_news = not visit.is_announced or bool(visit.events)
        self._announce(visit)
        self._entries.extend(visit.events)
        visit.events = ()
        return has_news

    def _announce(self, visit: OpenVisit) -> None:
        if not visit.is_announced:
            visit.is_announced = True
            self._entries.append(EventRow(EventType.STEP_STARTED, visit.step_name, visit.started_at, path=visit.path))


def _taken(entries: Iterable[_Entry]) -> Iterator[int]:
    """Ids of the messages that the visits among the entries have taken."""
    for entry in entries:
        if isinstance(entry, _RowWithEvents):
            yield from entry.taken


def _split(entries: list[_Entry], most_bytes: float) -> tuple[list[_Entry], list[_Entry], int]:
    """Split off the first entries: at most `most_bytes`, or one entry. Returns them, the rest, and their size."""
    size = 0
    for index, entry in enumerate(entries):
        added = _size(entry)
        if size + added > most_bytes and index > 0:
            return entries[:index], entries[index:], size
        size += added
    return entries, [], size


def _size(entry: _Entry) -> int:
    """Approximate size in bytes."""
    if isinstance(entry, VisitRow):
        return _row_size(entry)
    if isinstance(entry, EventRow):
        return _ROW_BYTES + len(entry.metadata)
    return _row_size(entry.row) + sum(_ROW_BYTES + len(event.metadata) for event in entry.before)


def _row_size(row: VisitRow) -> int:
    size = _ROW_BYTES + row.output_size
    if row.updates is not None:
        size += len(row.updates)
    if row.appends is not None:
        size += len(row.appends)
    if row.item_params is not None:
        size += len(row.item_params)
    if row.quality is not None:
        size += len(row.quality)
    return size


_NONE_TAKEN: tuple[int, ...] = ()
_COMPLETED = RunStatus.COMPLETED
_ROW_BYTES = 200  # of a row without its documents


def _number(
    entries: Iterable[_Entry], claim: Claim, token: str, *, records_events: bool
) -> tuple[list[VisitRow], list[EventRow], int]:
    """Number the entries in one loop, because every step passes here; returns rows, events and the next number."""
    visits: list[VisitRow] = []
    events: list[EventRow] = []
    number = claim.next_seq
    for entry in entries:
        row, is_announced, before, end_event = _parts(entry)
        if row is not None and records_events and not is_announced:
            row.started_seq = number
            number += 1
        if records_events:
            for event in before:
                event.seq = number
                number += 1
                events.append(event)
        if row is None:
            continue
        row.seq, row.epoch, row.commit_id = number, claim.epoch, token
        visits.append(row)
        if records_events and row.ends_item and row.item_index is not None:
            number += 1
            row.item_seq = number
        number += 1
        if records_events and end_event is not None:
            end_event.seq = row.seq
            events.append(end_event)
    return visits, events, number


def _parts(entry: _Entry) -> tuple[VisitRow | None, bool, Sequence[EventRow], EventRow | None]:
    """The row, whether its start was announced before, the events before its end, and the event with its number."""
    if isinstance(entry, VisitRow):
        return entry, False, (), None
    if isinstance(entry, EventRow):
        return None, True, (entry,), None
    return entry.row, entry.is_announced, entry.before, entry.end_event


def _end_event(end: RunEnd) -> EventRow:
    if end.status is _COMPLETED:
        return EventRow(EventType.WORKFLOW_COMPLETED, None, end.at)
    metadata: Mapping[str, object] = {
        "error_step": end.error_step,
        "error": end.error,
        "error_category": end.error_category,
        "reason": end.stop_reason,
    }
    known = {key: value for key, value in metadata.items() if value is not None}
    return EventRow(_END_EVENTS[end.status], None, end.at, encode(known).text if known else "{}")


_END_EVENTS = {
    RunStatus.COMPLETED: EventType.WORKFLOW_COMPLETED,
    RunStatus.FAILED: EventType.WORKFLOW_FAILED,
    RunStatus.STOPPED: EventType.WORKFLOW_STOPPED,
}
