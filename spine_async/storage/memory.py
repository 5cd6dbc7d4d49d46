"""Runs kept in this process's memory, with the whole contract of a store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count, islice

from spine_async._model.creation import as_stored
from spine_async._model.record import (
    Busy,
    Claim,
    EventRow,
    NewRun,
    PastVisit,
    Renewal,
    RunChange,
    RunFilter,
    StoredRun,
    VisitRow,
)
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome
from spine_async.storage.derived_events import merge_events, started_event, tells
from spine_async.storage.packing import PackedVisits

_UNDER_WAY = frozenset({RunStatus.RUNNING, RunStatus.WAITING})


@dataclass(slots=True)
class _Kept:
    """One run with all it has.

    Attributes:
        stored: The run as it was created, or claimed for the last time.
        creation: Mark of the call that made it.
        change: The last change committed since then, or None; the run is read together from both.
        has_progressed: Whether a step has ended since then.
    """

    key: int
    stored: StoredRun
    creation: str
    lease_end: float = 0.0
    stop_requested: str | None = None
    change: RunChange | None = None
    has_progressed: bool = False
    visits: PackedVisits = field(default_factory=PackedVisits)
    events: list[EventRow] = field(default_factory=list)

    @property
    def run(self) -> StoredRun:
        """The run as it is now."""
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
        """Keep what a change adds."""
        self.visits.extend(change.visits)
        self.events.extend(change.events)
        self.has_progressed = self.has_progressed or change.makes_progress
        self.change = change


class MemoryRunStore:
    """Keeps runs as long as the object lives; `close` lets nothing go. Long runs are kept packed.

    Every method finishes without awaiting, so calls never interleave and each is atomic.
    """

    works_elsewhere = False

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
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
        kept = self._kept.get(run_id)
        if kept is None or kept.status is RunStatus.COMPLETED:
            return None
        if unless_ended and kept.status.is_final:
            return None
        holder = _holder(kept)
        if holder not in {None, owner} and over_epoch != kept.stored.epoch:
            left = timedelta(seconds=kept.lease_end - time.monotonic())
            return Busy(str(holder), kept.stored.epoch, datetime.now(UTC) + left)
        if event is not None:
            kept.events.append(replace(event, seq=kept.next_seq))
        kept.stored, kept.change, kept.has_progressed = _claimed(kept.run, owner, event), None, False
        kept.lease_end, kept.stop_requested = time.monotonic() + ttl, None
        return Claim(run_id, kept.key, kept.stored.epoch, kept.next_seq)

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        return [self._renew(claim, ttl) for claim in claims]

    async def request_stop(self, run_id: str, reason: str) -> bool:
        kept = self._kept.get(run_id)
        if kept is None or kept.status not in _UNDER_WAY:
            return False
        kept.stop_requested = reason
        return True

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        return [self._commit(change) for change in changes]

    async def load(self, run_id: str) -> StoredRun | None:
        kept = self._kept.get(run_id)
        return _as_seen(kept) if kept is not None else None

    async def visits(self, run_id: str, below: str | None = None) -> list[VisitRow]:
        kept = self._kept.get(run_id)
        rows = kept.visits if kept is not None else ()
        return [replace(row) for row in rows if _is_chosen(row, below)]

    async def past_visits(self, run_id: str) -> Sequence[PastVisit]:
        return await self.visits(run_id)

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        ordered = sorted(self._kept.values(), key=_age, reverse=True)
        if chosen.before is not None:
            mark = self._kept.get(chosen.before)
            ordered = [each for each in ordered if mark is not None and _age(each) < _age(mark)]
        seen = (_as_seen(each) for each in ordered)
        return [run for run in seen if _fits(run, chosen)][: chosen.limit]

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        kept = self._kept.get(run_id)
        if kept is None:
            return []
        # Each of them tells of its end at least, and the first may tell of an item's end behind it: these are enough.
        telling = islice(filter(tells, kept.visits.ending_after(after - 1)), limit + 1)
        return [replace(each) for each in merge_events(kept.events, telling, after, kept.next_seq)[:limit]]

    async def delete(self, run_id: str) -> bool:
        return self._kept.pop(run_id, None) is not None

    async def close(self) -> None:
        return None

    def _create(self, new: NewRun) -> Claim | None:
        kept = self._kept.get(new.run_id)
        if kept is None:
            kept = _Kept(next(self._keys), as_stored(new), new.commit_id, time.monotonic() + new.lease_ttl)
            if new.emits:
                kept.events.append(started_event(new))
            self._kept[new.run_id] = kept
        elif kept.creation != new.commit_id or kept.stored.epoch > 1 or kept.change is not None:
            return None
        return Claim(new.run_id, kept.key, kept.stored.epoch, kept.next_seq)

    def _renew(self, claim: Claim, ttl: float) -> Renewal:
        kept = self._kept.get(claim.run_id)
        is_mine = kept is not None and (kept.key, kept.stored.epoch) == (claim.key, claim.epoch)
        if kept is None or not is_mine or kept.status not in _UNDER_WAY:
            return Renewal(is_held=False)
        kept.lease_end = time.monotonic() + ttl
        return Renewal(is_held=True, stop_reason=kept.stop_requested)

    def _commit(self, change: RunChange) -> CommitOutcome:
        kept = self._kept.get(change.run_id)
        if kept is None or not _is_in_force(kept, change):
            is_written = kept is not None and kept.change is not None and _mark(kept.change) == _mark(change)
            return CommitOutcome.COMMITTED if is_written else CommitOutcome.FENCED
        kept.add(change)
        return CommitOutcome.COMMITTED


def _is_in_force(kept: _Kept, change: RunChange) -> bool:
    held = (kept.key, kept.stored.epoch, kept.next_seq) == (change.key, change.epoch, change.expected_seq)
    return held and kept.status in _UNDER_WAY


def _mark(change: RunChange) -> tuple[int, str]:
    return change.epoch, change.commit_id


def _is_chosen(row: VisitRow, below: str | None) -> bool:
    return row.scope == "" if below is None else row.scope.startswith(f"{below}[")


def _age(kept: _Kept) -> tuple[datetime, int]:
    return kept.stored.created_at, kept.key


def _fits(run: StoredRun, chosen: RunFilter) -> bool:
    is_named = chosen.workflow_name in {None, run.workflow_name} and chosen.status in {None, run.status}
    is_wanted = run.status in _UNDER_WAY or not chosen.is_under_way
    return is_named and is_wanted and chosen.is_leased in {None, run.is_leased}


def _holder(kept: _Kept) -> str | None:
    """Whose the run is by a lease that holds, or None."""
    is_owned = kept.lease_end > time.monotonic() and (kept.change is None or kept.change.end is None)
    return kept.stored.owner if is_owned else None


def _as_seen(kept: _Kept) -> StoredRun:
    return replace(kept.run, is_leased=_holder(kept) is not None)


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
