"""A run store in the memory of this process, with the full contract of `RunStore`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count, islice

from spine_async._clock import SystemClock
from spine_async._model.due import (
    Backlog,
    Delivery,
    DueRequest,
    DueRun,
    DueRuns,
    Message,
    NewMessage,
    Notice,
    OpenWait,
    RunState,
    Sweep,
)
from spine_async._model.fork import ForkOutcome, NewFork
from spine_async._model.naming import is_path
from spine_async._model.queue import Queue
from spine_async._model.queue_room import soonest
from spine_async._model.run_change import Release, RunChange, ended_message
from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import DueTime, NewRun, StoredRun
from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async._model.status import FINISHED, RunStatus
from spine_async._model.turn import EXECUTED_BEFORE, TURN_STEP
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.ports import Clock, CommitOutcome, DeleteIf, NoListener
from spine_async.storage.derived_events import has_events, merge_events, started_event
from spine_async.storage.memory_forks import forked_events, forked_visits
from spine_async.storage.memory_overview import backlog, open_waits
from spine_async.storage.memory_queues import MemoryQueues
from spine_async.storage.memory_run import (
    MemoryRun,
    claim_for,
    claim_of,
    claimed,
    is_claimable,
    is_new_with_key,
    lease_holder,
    passes_fence,
    released,
    state,
    sweep_due,
    turn,
    waits_for_a_minute,
    with_lease,
)
from spine_async.storage.memory_schedules import MemorySchedules
from spine_async.storage.run_selection import matches, select_runs
from spine_async.storage.visit_selection import select_visits


class MemoryRunStore:
    """Stores runs for the lifetime of the object; `close` deletes nothing. Visits of long runs are compressed.

    Args:
        clock: Source of the time of leases and due times; None means the system clock.
        keys: Keys of the runs, in the order of their creation; None numbers them.

    No method awaits anything, so calls never interleave and each of them is atomic.
    """

    location = "the memory of this process"

    def __init__(self, clock: Clock | None = None, keys: Iterator[int] | None = None) -> None:
        self._clock = clock or SystemClock()
        self._runs: dict[str, MemoryRun] = {}
        self._keys = keys if keys is not None else count(1)
        self._message_ids = count(1)
        self._queues = MemoryQueues(self._clock)
        self._schedules = MemorySchedules(self._is_under_way, self._create)

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
        answer = self._claimable(run_id, owner, over_epoch, unless_ended=unless_ended)
        return self._claim(answer, owner, event, ttl) if isinstance(answer, MemoryRun) else answer

    async def claim_queued(
        self,
        run_id: str,
        owner: str,
        event: EventRow | None,
        *,
        limits: Queue,
        ttl: float,
        over_epoch: int | None = None,
        unless_ended: bool = False,
    ) -> Claim | Busy | NoRoom | None:
        found = self._claimable(run_id, owner, over_epoch, unless_ended=unless_ended)
        if not isinstance(found, MemoryRun):
            return found
        room, is_new = self._queues.room_of(limits, owner, self._runs.values(), besides=found), found.stored.epoch == 0
        if not room.take(found.stored.queue_key, is_new=is_new):
            return NoRoom(room.room_in)
        self._queues.record_first_claims(limits, int(is_new))
        return self._claim(found, owner, event, ttl)

    def _claimable(
        self, run_id: str, owner: str, over_epoch: int | None, *, unless_ended: bool
    ) -> MemoryRun | Busy | None:
        """The run if the owner may claim it, else the answer of the claim."""
        found = self._runs.get(run_id)
        if found is None or found.status is RunStatus.COMPLETED:
            return None
        if unless_ended and found.status.is_final:
            return None
        holder = lease_holder(found)
        if holder not in {None, owner} and over_epoch != found.stored.epoch:
            remaining = timedelta(seconds=found.lease_end - self._clock.monotonic())
            return Busy(owner=str(holder), epoch=found.stored.epoch, lease_until=self._clock.now() + remaining)
        return found

    def _claim(self, found: MemoryRun, owner: str, event: EventRow | None, ttl: float) -> Claim:
        if event is not None:
            found.events.append(replace(event, seq=found.next_seq))
        is_first, at = found.stored.epoch == 0, event.timestamp if event is not None else self._clock.now()
        found.stored, found.change, found.has_progressed = claimed(found.run, owner, event), None, False
        if is_first:
            found.stored = replace(found.stored, started_at=at)
        found.lease_end, found.stop_requested = self._clock.monotonic() + ttl, None
        found.due_mono, found.is_ready = None, False
        return claim_of(found)

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        again = [each for each in self._runs.values() if each.claim_token == request.token]
        ready = [each for each in self._runs.values() if is_claimable(each, request)]
        ready.sort(key=turn)
        claimed = [DueRun(replace(with_lease(each)), claim_of(each)) for each in again]
        rooms = {
            each.name: self._queues.room_of(each, request.owner, self._runs.values())
            for each in request.limits
            if ready
        }
        begun: Counter[str] = Counter()
        for found in ready:
            if len(claimed) >= request.limit:
                break
            queue, is_new = found.stored.queue, found.stored.epoch == 0
            room = rooms.get(queue)
            if room is None or room.take(found.stored.queue_key, is_new=is_new):
                begun[queue] += is_new
                claimed.append(claim_for(found, request))
        for each in request.limits:
            self._queues.record_first_claims(each, begun[each.name])
        return DueRuns(claimed, room_in=soonest(rooms.values()))

    async def unlisted_queues(self, listed: Collection[str]) -> list[str]:
        waiting = {each.stored.queue for each in self._runs.values() if waits_for_a_minute(each)}
        return self._queues.unlisted(listed, waiting)

    async def sweep(
        self, gone: Collection[str] = (), lapsed: Collection[str] = (), spared: Collection[str] = ()
    ) -> Sweep:
        now, owners, times = self._clock.monotonic(), dict[str, bool](), list[float]()
        for found in self._runs.values():
            if found.is_ready or found.status.is_final:
                continue
            owner = found.run.owner
            if owner is None:
                sweep_due(found, now)
                self._give_turn(found)
                times += [found.due_mono] if found.due_mono is not None else []
                continue
            has_ended = found.lease_end <= now
            if owner in gone or (has_ended and owner in lapsed and found.stored.run_id not in spared):
                found.become_ready()
                found.turn += EXECUTED_BEFORE if found.status is RunStatus.RUNNING else 0.0
            else:
                owners[owner] = owners.get(owner, False) or has_ended
                times.append(found.lease_end)
        later = [each - now for each in times if each > now]
        is_any_ready = any(found.is_ready for found in self._runs.values())
        return Sweep(owners, min(later, default=None), made_ready=is_any_ready)

    async def release_run(self, claim: Claim, release: Release) -> bool:
        found = self._runs.get(claim.run_id)
        if found is None or (found.key, found.stored.epoch) != (claim.key, claim.epoch) or not found.is_held:
            return False
        found.stored, found.change, found.has_progressed = released(found.run, release), None, False
        if release.restored is not None:
            found.stop_requested = None
        awaits_messages = release.awaits_messages and release.restored is None
        found.become_due(release.due, awaits_messages=awaits_messages, ignores_stop=release.ignores_stop)
        return True

    async def send(self, message: NewMessage) -> Delivery:
        found = self._runs.get(message.run_id)
        if found is None:
            return Delivery.NOT_FOUND
        if found.known_keys.get(message.token) is not None:
            return Delivery.STORED
        key = f"key {message.idempotency_key}"
        if message.idempotency_key is not None and key in found.known_keys:
            return Delivery.DUPLICATE
        if found.status is RunStatus.COMPLETED:
            return Delivery.ENDED
        found.known_keys[message.token] = message.token
        if message.idempotency_key is not None:
            found.known_keys[key] = message.token
        found.messages.append(Message(next(self._message_ids), message.name, message.value, message.received_at))
        found.has_news = True
        return Delivery.STORED

    async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
        held = [self._runs[each.run_id] for each in claims if self._is_current(each)]
        return [
            Notice(each.stored.run_id, each.stop_requested, tuple(each.messages))
            for each in held
            if each.stop_requested is not None or each.messages
        ]

    async def states(self, run_ids: Sequence[str]) -> list[RunState]:
        found = [self._runs[run_id] for run_id in dict.fromkeys(run_ids) if run_id in self._runs]
        return [state(each) for each in found]

    async def backlog(self, limit: int) -> Backlog:
        return backlog(self._runs.values(), self._queues.listed_at(), limit)

    async def open_waits(self, run_ids: Sequence[str]) -> list[OpenWait]:
        found = [self._runs[run_id] for run_id in sorted(set(run_ids)) if run_id in self._runs]
        return [wait for each in found for wait in open_waits(each)]

    async def listen(self, on_change: Callable[[], None]) -> NoListener:
        return NoListener()

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        return [self._renew(claim, ttl) for claim in claims]

    async def request_stop(self, run_id: str, reason: str) -> bool:
        found = self._runs.get(run_id)
        if found is None or found.status.is_final:
            return False
        found.stop_requested = reason
        return True

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        return [self._commit(change) for change in changes]

    async def load(self, run_id: str) -> StoredRun | None:
        found = self._runs.get(run_id)
        return with_lease(found) if found is not None else None

    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        found = self._runs.get(run_id)
        if found is None:
            return []
        rows = found.visits.candidates(chosen)
        return [replace(row) for row in select_visits(rows, chosen)]

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
        return select_runs(map(with_lease, self._runs.values()), chosen)

    async def count_runs(self, chosen: RunFilter) -> dict[RunStatus, int]:
        counts = Counter(run.status for run in map(with_lease, self._runs.values()) if matches(run, chosen))
        return {status: min(count, chosen.limit) for status, count in counts.items()}

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        found = self._runs.get(run_id)
        if found is None:
            return []
        # Each visit here yields at least one event after `after`. A visit that ends at `after` may yield an item's
        # event with the next number. So `limit + 1` visits are enough.
        visits = islice(filter(has_events, found.visits.ending_after(after - 1)), limit + 1)
        return [replace(event) for event in merge_events(found.events, visits, after, found.next_seq)[:limit]]

    async def delete(self, run_ids: Sequence[str], condition: DeleteIf = DeleteIf.STORED) -> list[str]:
        removed = [each for each in dict.fromkeys(run_ids) if self._is_removable(each, condition)]
        for each in removed:
            del self._runs[each]
        return removed

    async def fork(self, new: NewFork) -> ForkOutcome:
        source = self._runs.get(new.source_id)
        if source is None or source.stored.created_at != new.source_created_at:
            return ForkOutcome.NOT_FOUND
        if self._create(new.run) is None:
            return ForkOutcome.TAKEN
        found = self._runs[new.run.run_id]
        if found.stored.forked_from is None:
            found.stored = replace(found.stored, next_seq=new.next_seq, forked_from=new.source_id)
            found.visits.extend(forked_visits(new, source.visits))
            found.events.extend(forked_events(new, source.events))
        return ForkOutcome.FORKED

    async def register_schedules(self, schedules: Sequence[NewSchedule]) -> None:
        self._schedules.register(schedules)

    async def schedules(self, names: Collection[str] | None = None) -> list[StoredSchedule]:
        return self._schedules.read(names)

    async def change_schedule(self, change: ScheduleChange) -> bool:
        return self._schedules.change(change)

    async def workflow_names(self) -> list[str]:
        return sorted({found.stored.workflow_name for found in self._runs.values()})

    def _is_removable(self, run_id: str, condition: DeleteIf) -> bool:
        found = self._runs.get(run_id)
        if found is None or condition is DeleteIf.STORED:
            return found is not None
        parent = self._runs.get(found.stored.parent_run_id or "") if condition is DeleteIf.UNUSED else None
        return found.status.is_final and (parent is None or parent.status.is_final)

    async def close(self) -> None:
        return None

    def _is_under_way(self, run_id: str) -> bool:
        found = self._runs.get(run_id)
        return found is not None and not found.status.is_final

    def _create(self, new: NewRun) -> Claim | None:
        found = self._runs.get(new.run_id)
        if found is None:
            key = next(self._keys)
            found = self._runs[new.run_id] = MemoryRun(
                key=key,
                stored=replace(StoredRun.from_new(new), key=key),
                creation_id=new.commit_id,
                lease_end=self._clock.monotonic() + new.lease_ttl,
                clock=self._clock,
            )
            if not new.is_held:
                found.become_due(new.due or DueTime(new.created_at, 0.0), awaits_messages=False)
                self._give_turn(found)
            elif new.records_events:
                found.events.append(started_event(new))
        elif found.creation_id != new.commit_id or found.stored.epoch > new.is_held or found.change is not None:
            return None
        return claim_of(found)

    def _give_turn(self, found: MemoryRun) -> None:
        """Give a new run with a key, which has become ready, its turn among the other keys of its queue."""
        run, key = found.stored, found.stored.queue_key
        if key is None or run.epoch > 0 or not found.is_ready:
            return
        place = (run.queue, run.priority)
        others = [each for each in self._runs.values() if each is not found and is_new_with_key(each, place)]
        last = max((each.turn for each in others if each.stored.queue_key == key), default=-math.inf)
        floor = min((each.turn for each in others), default=found.turn)
        found.turn = max(floor, last + TURN_STEP)

    def _renew(self, claim: Claim, ttl: float) -> Renewal:
        found = self._runs.get(claim.run_id)
        if found is None or not self._is_current(claim):
            return Renewal(is_held=False)
        found.lease_end, found.is_ready = self._clock.monotonic() + ttl, False
        if ttl == 0:
            now = self._clock.now()
            found.stored = replace(found.stored, owner=None, due_at=now)
            found.become_due(DueTime(now, 0.0), awaits_messages=False)
        return Renewal(is_held=True, stop_reason=found.stop_requested)

    def _is_current(self, claim: Claim) -> bool:
        """Whether the claim holds its run."""
        found = self._runs.get(claim.run_id)
        is_same = found is not None and (found.key, found.stored.epoch) == (claim.key, claim.epoch)
        return found is not None and is_same and found.is_held

    def _commit(self, change: RunChange) -> CommitOutcome:
        found = self._runs.get(change.run_id)
        if found is None:
            return CommitOutcome.FENCED
        if passes_fence(found, change):
            found.add(change)
            self._notify(change)
            return CommitOutcome.COMMITTED
        last = found.change
        is_committed = last is not None and (last.epoch, last.commit_id) == (change.epoch, change.commit_id)
        return CommitOutcome.COMMITTED if is_committed else CommitOutcome.FENCED

    def _notify(self, change: RunChange) -> None:
        """Send the message about the end of a child run to its parent."""
        parent = self._runs.get(change.notified_run_id) if change.notified_run_id is not None else None
        if parent is not None and parent.status is not RunStatus.COMPLETED:
            name = ended_message(change.run_id)
            parent.messages.append(Message(next(self._message_ids), name, "null", change.at))
            parent.has_news = True
