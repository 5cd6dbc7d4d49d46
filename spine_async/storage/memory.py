"""A run store in the memory of this process, with the full contract of `RunStore`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count, islice

from spine_async._model.naming import is_path
from spine_async._model.record import (
    Busy,
    Claim,
    EventRow,
    NewRun,
    PastPage,
    Renewal,
    RunChange,
    RunFilter,
    StoredRun,
    VisitRow,
)
from spine_async._model.status import FINISHED, RunStatus
from spine_async.ports import CommitOutcome
from spine_async.storage.derived_events import has_events, merge_events, started_event
from spine_async.storage.packing import PackedVisits

_UNDER_WAY = frozenset({RunStatus.RUNNING, RunStatus.WAITING})


@dataclass(slots=True, kw_only=True)
class _MemoryRun:
    """One run with its visits and events.

    Attributes:
        stored: The run when it was created or last claimed.
        creation_id: `commit_id` of the creation.
        lease_end: Monotonic time in seconds.
        change: The last change committed since `stored`, or None. `run` combines both.
        has_progressed: Whether a step has ended since `stored`.
    """

    key: int
    stored: StoredRun
    creation_id: str
    lease_end: float
    stop_requested: str | None = None
    change: RunChange | None = None
    has_progressed: bool = False
    visits: PackedVisits = field(default_factory=PackedVisits)
    events: list[EventRow] = field(default_factory=list)

    @property
    def run(self) -> StoredRun:
        """The run in its current state."""
        change = self.change
        return self.stored if change is None else _changed(self.stored, change, has_progressed=self.has_progressed)

    @property
    def next_seq(self) -> int:
        return self.stored.next_seq if self.change is None else self.change.next_seq

    @property
    def status(self) -> RunStatus:
        change = self.change
        if change is None:
            return self.stored.status
        return change.status if change.end is None else change.end.status

    def add(self, change: RunChange) -> None:
        """Apply a change."""
        self.visits.extend(change.visits)
        self.events.extend(change.events)
        self.has_progressed = self.has_progressed or change.makes_progress
        self.change = change


class MemoryRunStore:
    """Stores runs for the lifetime of the object; `close` deletes nothing. Visits of long runs are compressed.

    No method awaits anything, so calls never interleave and each of them is atomic.
    """

    location = "the memory of this process"

    def __init__(self) -> None:
        self._runs: dict[str, _MemoryRun] = {}
        self._keys = count(1)

    async def open(self) -> None:
        return None

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        claims, seen = list[Claim | None](), set[str]()
        for run in runs:
            claims.append(self._create(run) if run.run_id not in seen else None)
            seen.add(run.run_id)
        return claims

    async def claim(
        self,
        run_id: str,
        owner: str,
        event: EventRow | None,
        *,
        ttl: float,
        over_epoch: int | None = None,
        unless_ended: bool = False,
    ) -> Claim | Busy | None:
        found = self._runs.get(run_id)
        if found is None or found.status is RunStatus.COMPLETED:
            return None
        if unless_ended and found.status.is_final:
            return None
        holder = _lease_holder(found)
        if holder not in {None, owner} and over_epoch != found.stored.epoch:
            remaining = timedelta(seconds=found.lease_end - time.monotonic())
            return Busy(owner=str(holder), epoch=found.stored.epoch, lease_until=datetime.now(UTC) + remaining)
        if event is not None:
            found.events.append(replace(event, seq=found.next_seq))
        found.stored, found.change, found.has_progressed = _claimed(found.run, owner, event), None, False
        found.lease_end, found.stop_requested = time.monotonic() + ttl, None
        return _claim_of(found)

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        return [self._renew(claim, ttl) for claim in claims]

    async def request_stop(self, run_id: str, reason: str) -> bool:
        found = self._runs.get(run_id)
        if found is None or found.status not in _UNDER_WAY:
            return False
        found.stop_requested = reason
        return True

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        return [self._commit(change) for change in changes]

    async def load(self, run_id: str) -> StoredRun | None:
        found = self._runs.get(run_id)
        return _with_lease(found) if found is not None else None

    async def visits(self, run_id: str, below: str | None = None) -> list[VisitRow]:
        found = self._runs.get(run_id)
        rows = found.visits if found is not None else ()
        return [replace(row) for row in rows if _is_in_scope(row, below)]

    async def past_visits(self, run_id: str, after: int, limit: int) -> PastPage:
        page = await self.visit_page(run_id, after, limit, "")
        return PastPage(page, page[-1].seq if page else 0)

    async def visit_page(self, run_id: str, after: int, limit: int, scope: str | None = None) -> list[VisitRow]:
        found = self._runs.get(run_id)
        rows = found.visits.ending_after(after) if found is not None else iter(())
        wanted = (row for row in rows if scope is None or row.scope == scope)
        return [replace(row) for row in islice(wanted, limit)]

    async def last_visit(self, run_id: str, step: str) -> VisitRow | None:
        found = self._runs.get(run_id)
        last = None
        for row in found.visits if found is not None else ():
            is_wanted = row.path == step if is_path(step) else (row.scope, row.step_name) == ("", step)
            if is_wanted and row.status in FINISHED:
                last = row
        return replace(last) if last is not None else None

    async def last_event(self, run_id: str, event_type: str, path: str) -> EventRow | None:
        found = self._runs.get(run_id)
        for event in reversed(found.events if found is not None else ()):
            if (event.event_type, event.path) == (event_type, path):
                return replace(event)
        return None

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        newest_first = sorted(self._runs.values(), key=_age, reverse=True)
        if chosen.before is not None:
            last = self._runs.get(chosen.before)
            newest_first = [each for each in newest_first if last is not None and _age(each) < _age(last)]
        runs = map(_with_lease, newest_first)
        return [run for run in runs if _matches(run, chosen)][: chosen.limit]

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        found = self._runs.get(run_id)
        if found is None:
            return []
        # Each visit here yields at least one event after `after`. A visit that ends at `after` may yield an item's
        # event with the next number. So `limit + 1` visits are enough.
        visits = islice(filter(has_events, found.visits.ending_after(after - 1)), limit + 1)
        return [replace(event) for event in merge_events(found.events, visits, after, found.next_seq)[:limit]]

    async def delete(self, run_id: str) -> bool:
        return self._runs.pop(run_id, None) is not None

    async def close(self) -> None:
        return None

    def _create(self, new: NewRun) -> Claim | None:
        found = self._runs.get(new.run_id)
        if found is None:
            found = self._runs[new.run_id] = _MemoryRun(
                key=next(self._keys),
                stored=StoredRun.from_new(new),
                creation_id=new.commit_id,
                lease_end=time.monotonic() + new.lease_ttl,
            )
            if new.records_events:
                found.events.append(started_event(new))
        elif found.creation_id != new.commit_id or found.stored.epoch > 1 or found.change is not None:
            return None
        return _claim_of(found)

    def _renew(self, claim: Claim, ttl: float) -> Renewal:
        found = self._runs.get(claim.run_id)
        is_held = found is not None and (found.key, found.stored.epoch) == (claim.key, claim.epoch)
        if found is None or not is_held or found.status not in _UNDER_WAY:
            return Renewal(is_held=False)
        found.lease_end = time.monotonic() + ttl
        return Renewal(is_held=True, stop_reason=found.stop_requested)

    def _commit(self, change: RunChange) -> CommitOutcome:
        found = self._runs.get(change.run_id)
        if found is None:
            return CommitOutcome.FENCED
        if _passes_fence(found, change):
            found.add(change)
            return CommitOutcome.COMMITTED
        last = found.change
        is_committed = last is not None and (last.epoch, last.commit_id) == (change.epoch, change.commit_id)
        return CommitOutcome.COMMITTED if is_committed else CommitOutcome.FENCED


def _passes_fence(found: _MemoryRun, change: RunChange) -> bool:
    current = (found.key, found.stored.epoch, found.next_seq)
    return current == (change.key, change.epoch, change.expected_seq) and found.status in _UNDER_WAY


def _claim_of(found: _MemoryRun) -> Claim:
    return Claim(run_id=found.stored.run_id, key=found.key, epoch=found.stored.epoch, next_seq=found.next_seq)


def _is_in_scope(row: VisitRow, below: str | None) -> bool:
    return row.scope == "" if below is None else row.scope.startswith(f"{below}[")


def _age(found: _MemoryRun) -> tuple[datetime, int]:
    return found.stored.created_at, found.key


def _matches(run: StoredRun, chosen: RunFilter) -> bool:
    has_name_and_status = chosen.workflow_name in {None, run.workflow_name} and chosen.status in {None, run.status}
    is_wanted = run.status in _UNDER_WAY or not chosen.is_under_way
    return has_name_and_status and is_wanted and chosen.is_leased in {None, run.is_leased}


def _lease_holder(found: _MemoryRun) -> str | None:
    """The owner whose lease is valid, or None."""
    is_leased = found.lease_end > time.monotonic() and (found.change is None or found.change.end is None)
    return found.stored.owner if is_leased else None


def _with_lease(found: _MemoryRun) -> StoredRun:
    return replace(found.run, is_leased=_lease_holder(found) is not None)


def _claimed(run: StoredRun, owner: str, event: EventRow | None) -> StoredRun:
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
        updated_at=event.timestamp if event is not None else datetime.now(UTC),
        completed_at=None,
        claims_since_progress=run.claims_since_progress + 1 if run.status in _UNDER_WAY else 1,
    )


def _changed(run: StoredRun, change: RunChange, *, has_progressed: bool) -> StoredRun:
    claims = 0 if has_progressed else run.claims_since_progress
    moved = replace(
        run, next_seq=change.next_seq, status=change.status, updated_at=change.at, claims_since_progress=claims
    )
    end = change.end
    if end is None:
        return moved
    return replace(
        moved,
        status=end.status,
        owner=None,
        error_step=end.error_step,
        error=end.error,
        error_category=end.error_category,
        stop_reason=end.stop_reason,
        completed_at=end.at,
    )
