"""Follows the events of runs until the runs end, wherever they are executed.

Theory of operation: a follower reads events from the store, from its own position on, whenever it learns that the run
has a higher number. So it misses and repeats nothing at any speed, and nobody waits for it. It learns of higher numbers
in two ways. A commit of this runner wakes it directly. For runs that are executed elsewhere, one task asks the store
for the numbers of all of them in one call, several times a second.

A run may be deleted, and created anew under its id, between two looks. Its numbers are lower then than those that are
known. In that case the run is loaded, and compared with the one that was followed.

The followers of one run share what one of them has read. Events of a commit without steps, such as emitted ones, are
taken from the commit itself. Without followers none of this costs anything.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence

import anyio

from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.service.query import as_event
from spine_async._engine.start.stored_run import load
from spine_async._engine.tasks import (
    EventLoop,
    Future,
    Task,
    new_future,
    resolve,
    run_shielded,
    running_loop,
    spawn,
    wait_ended,
)
from spine_async._model.history import Event
from spine_async._model.run_change import RunChange
from spine_async._model.run_row import StoredRun
from spine_async._model.visit_row import EventRow
from spine_async.errors import RunNotFoundError, StoreError

_PAGE = 500
_KEPT_EVENTS, _KEPT_BYTES = 1000, 4_000_000
"""How much of what was read is kept for the other followers of the run."""

_QUICK, _SLOW = 0.01, 0.03
"""Seconds between two reads of the states of runs that are executed elsewhere: while events arrive, and otherwise."""
_QUICK_FOR = 1.0
"""Seconds for which the shorter interval is used after a change."""
_PAUSE = 0.003
"""Shortest time in seconds between two such reads."""

_log = logging.getLogger("spine_async")


class _FollowedRun:
    """What the followers of one run share.

    Attributes:
        readers: Number of its followers.
        state: Epoch, the number after its last event, and whether it has ended.
        identity: What distinguishes it from a run that is created later under the same id; None until it is loaded.
        is_missing: Whether it was deleted.
        is_fed: Whether commits of this runner report it.
        looked_mono: When the store was last asked for its state.
        lock: Held by the follower that reads new events.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.readers = 0
        self.state = (0, 0, False)
        self.identity: tuple[object, ...] | None = None
        self.is_missing = False
        self.is_fed = False
        self.looked_mono = 0.0
        self.lock = anyio.Lock()
        self._rows: deque[EventRow] = deque()
        self._first = self._end = 0  # all events from `_first` on and before `_end` are in `_rows`
        self._size = 0
        self._waiters: set[Future[None]] = set()

    def update(self, epoch: int, next_seq: int, *, has_ended: bool) -> bool:
        """Take note of a state, unless a later one is known; returns whether it is new."""
        state = (epoch, next_seq, has_ended)
        if state <= self.state:
            return False
        self.state = state
        self._wake()
        return True

    def identify(self, stored: StoredRun) -> bool:
        """Whether this is the run that is followed."""
        identity = (stored.key, stored.created_at)
        if self.identity is None:
            self.identity = identity
        return self.identity == identity

    def is_beyond(self, epoch: int, next_seq: int) -> bool:
        """Whether higher numbers are known than these."""
        return epoch < self.state[0] or next_seq < self.state[1]

    def vanish(self) -> None:
        """Take note that the run is not stored any more."""
        self.is_missing = True
        self._wake()

    async def changed(self) -> None:
        """Wait for the next change."""
        waiter: Future[None] = new_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def covers(self, position: int) -> bool:
        """Whether the event with this number is kept."""
        return self._first <= position < self._end

    def is_newest(self, position: int) -> bool:
        """Whether nobody has read this event before."""
        return position >= self._end

    def kept_from(self, position: int) -> tuple[list[EventRow], int]:
        """The kept events from this number on, and the number after them."""
        found: list[EventRow] = []
        for row in reversed(self._rows):
            if row.seq < position:
                break
            found.append(row)
        found.reverse()
        return found, self._end

    def keep(self, rows: Iterable[EventRow], first: int, end: int) -> None:
        """Keep events that were read: all those from `first` on and before `end`."""
        if first > self._end:
            self._rows.clear()
            self._first, self._size = first, 0
        for row in rows:
            if row.seq >= self._end:
                self._rows.append(row)
                self._size += len(row.metadata)
        self._end = max(self._end, end)
        while self._rows and (len(self._rows) > _KEPT_EVENTS or self._size > _KEPT_BYTES):
            dropped = self._rows.popleft()
            self._first = dropped.seq + 1
            self._size -= len(dropped.metadata)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, set()
        resolve(waiters)


class Followers:
    """The calls of a runner that follow runs.

    Args:
        runtime: What all runs share.
        active_runs: The runs that this runner executes.
    """

    def __init__(self, runtime: Runtime, active_runs: ActiveRuns) -> None:
        self._runtime = runtime
        self._active_runs = active_runs
        self._followed: dict[str, _FollowedRun] = {}
        self._watching: Task[None] | None = None
        self._loop: EventLoop | None = None

    async def follow(self, run_id: str, after: int) -> AsyncGenerator[Event, None]:
        """The run's events with a number above `after`, in order, until the run has ended.

        Raises:
            RunNotFoundError: The run is not stored, or was deleted.
            StoreError: The store cannot be read. Another call with the last number continues.
        """
        followed, position = await self._begin(run_id), max(after, 0) + 1
        try:
            while True:
                if followed.is_missing:
                    raise RunNotFoundError(run_id)
                state = followed.state
                _, next_seq, has_ended = state
                while position < next_seq:
                    rows, position = await self._read(followed, position, next_seq)
                    for row in rows:
                        yield as_event(run_id, row)
                if has_ended:
                    return
                if followed.state == state and not followed.is_missing:
                    await followed.changed()
        finally:
            await self._leave(followed)

    async def _begin(self, run_id: str) -> _FollowedRun:
        while True:
            followed = self._enter(run_id)
            try:
                stored = await load(self._runtime, run_id)
                if followed.identify(stored):
                    followed.update(stored.epoch, stored.next_seq, has_ended=stored.status.is_final)
                    return followed
            except BaseException:
                await self._leave(followed)
                raise
            followed.vanish()  # earlier followers do not know yet that the run was deleted
            await self._leave(followed)

    async def _read(self, followed: _FollowedRun, position: int, next_seq: int) -> tuple[Sequence[EventRow], int]:
        """Events from `position` on, and the number after them; all events before `next_seq` are stored."""
        if followed.covers(position):
            return followed.kept_from(position)
        if not followed.is_newest(position):  # a slow reader, or one that began later
            return await self._page(followed.run_id, position, next_seq)
        async with followed.lock:
            if followed.covers(position):
                return followed.kept_from(position)
            rows, end = await self._page(followed.run_id, position, next_seq)
            followed.keep(rows, position, end)
        return rows, end

    async def _page(self, run_id: str, position: int, next_seq: int) -> tuple[Sequence[EventRow], int]:
        rows = await self._runtime.store.events(run_id, position - 1, _PAGE)
        end = rows[-1].seq + 1 if rows else position
        return rows, end if len(rows) >= _PAGE else max(end, next_seq)

    def _enter(self, run_id: str) -> _FollowedRun:
        loop = running_loop()
        if loop is not self._loop:  # what belongs to an earlier loop has ended with it
            self._loop, self._watching = loop, None
            self._followed.clear()
        followed = self._followed.get(run_id)
        if followed is None or followed.is_missing:
            followed = self._followed[run_id] = _FollowedRun(run_id)
        followed.readers += 1
        self._runtime.journal.on_commit = self._committed
        if self._watching is None or self._watching.done():
            self._watching = spawn(self._watch(), "spine_async followers")
        else:
            self._runtime.changes.notify(Change.EVENTS)
        return followed

    async def _leave(self, followed: _FollowedRun) -> None:
        followed.readers -= 1
        if followed.readers == 0 and self._followed.get(followed.run_id) is followed:
            del self._followed[followed.run_id]
        if not self._followed and self._watching is not None:
            watching, self._watching = self._watching, None
            self._runtime.journal.on_commit = None
            watching.cancel()
            await wait_ended(watching)

    def _committed(self, change: RunChange) -> None:
        """Called by the journal after each commit of this runner, while there are followers."""
        followed = self._followed.get(change.run_id)
        if followed is None:
            return
        if followed.is_beyond(change.epoch, change.next_seq):  # a later look, or a run that was created anew
            followed.is_fed = False
            self._runtime.changes.notify(Change.EVENTS)
            return
        if not change.visits:  # the store derives the events of visits
            followed.keep(change.events, change.expected_seq, change.next_seq)
        followed.is_fed = change.release is None
        followed.update(change.epoch, change.next_seq, has_ended=change.end is not None)
        if not followed.is_fed:
            self._runtime.changes.notify(Change.EVENTS)  # the run continues elsewhere

    async def _watch(self) -> None:
        """Ask the store for the states of runs that no commit of this runner reports."""
        changes, clock, interval = self._runtime.changes, self._runtime.clock, self._runtime.config.poll_interval
        quick_until_mono = clock.monotonic() + _QUICK_FOR
        async with changes.listening():
            while True:
                seen = changes.count(Change.EVENTS)
                now_mono = clock.monotonic()
                runs = [each for each in self._followed.values() if self._is_due(each, now_mono)]
                wait = interval
                try:
                    if runs and await self._look(runs):
                        quick_until_mono = now_mono + _QUICK_FOR
                    if not all(self._is_local(each) for each in self._followed.values()):
                        wait = min(interval, _QUICK if now_mono < quick_until_mono else _SLOW)
                except StoreError as exc:
                    _log.warning("followed runs could not be read; it will be retried: %s", exc)
                except Exception:  # noqa: BLE001 - the followers would wait for ever
                    _log.exception("followed runs could not be read; it will be retried")
                await anyio.sleep(_PAUSE)
                await changes.wait(Change.EVENTS, wait, seen)

    async def _look(self, runs: Sequence[_FollowedRun]) -> bool:
        """Update the states of these runs in one call of the store; returns whether one has changed."""
        asked = self._runtime.due_runs.states([each.run_id for each in runs])
        states = {state.run_id: state for state in await run_shielded(asked, "spine_async follow")}
        now_mono, has_changed = self._runtime.clock.monotonic(), False
        for each in runs:
            each.looked_mono = now_mono
            state = states.get(each.run_id)
            if state is None or (each.is_beyond(state.epoch, state.next_seq) and not await self._is_stored(each)):
                each.vanish()
            elif each.update(state.epoch, state.next_seq, has_ended=state.status.is_final):
                has_changed = True
        return has_changed

    async def _is_stored(self, followed: _FollowedRun) -> bool:
        """Whether the run that is followed is still stored, and not another one with its id."""
        stored = await run_shielded(self._runtime.store.load(followed.run_id), "spine_async follow")
        return stored is not None and followed.identify(stored)

    def _is_due(self, followed: _FollowedRun, now_mono: float) -> bool:
        """Whether the store is to be asked now; for a run that commits of this runner report, only now and then."""
        is_late = now_mono - followed.looked_mono >= self._runtime.config.poll_interval
        return is_late or not self._is_local(followed)

    def _is_local(self, followed: _FollowedRun) -> bool:
        return followed.is_fed and self._active_runs.find(followed.run_id) is not None
