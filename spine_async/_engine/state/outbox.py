"""The events that running steps emit, until they are committed.

Theory of operation: `add` may be called in any thread. In the thread of the event loop the event goes to the pending
writes of its run at once. In another thread it waits in a queue, and one callback of the loop moves everything that has
arrived. The journal commits what is pending: at once if it is idle, else in its next group. An attempt that ends moves
what has arrived before its result is applied, so its events precede the end of its step.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from spine_async._engine.state.open_visit import OpenVisit
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.tasks import EventLoop, Future
from spine_async._model.document import encode
from spine_async._model.naming import event_type_problem
from spine_async._model.visit_row import EventRow
from spine_async.errors import (
    AttemptEndedError,
    DefinitionError,
    SerializationError,
    StoreError,
    TooManyPendingEventsError,
)


class EnqueuedCommit(Protocol):
    """A commit that was enqueued.

    Attributes:
        error: The error with which it failed, or None.
    """

    @property
    def error(self) -> BaseException | None: ...

    def future(self) -> Future[None]:
        """A future that is done when the commit has ended, in whatever way."""
        ...


@dataclass(frozen=True, slots=True)
class OutboxOptions:
    """What all outboxes of a runner share.

    Attributes:
        enqueue: Enqueues the pending writes of a run.
        loop: The event loop that executes the runs.
        thread: Identifier of the thread of the loop.
        max_events: Maximum number of events of one run that are not stored yet.
        max_bytes: Maximum size of the data of one event, in bytes of its JSON text.
        stores: Whether the runner stores anything.
    """

    enqueue: Callable[[PendingWrites], EnqueuedCommit]
    loop: EventLoop
    thread: int
    max_events: int
    max_bytes: int
    stores: bool


class Emitter(Protocol):
    """An attempt that emits events."""

    @property
    def visit(self) -> OpenVisit: ...

    def check_running(self, number: int) -> None:
        """Raise `AttemptEndedError` if it has ended."""
        ...


@dataclass(slots=True)
class _Commit:
    """A commit of emitted events.

    Attributes:
        moved: Number of events of the run that were emitted up to the last one in this commit.
        has_failed: Whether it failed; its events are in a later commit then.
    """

    enqueued: EnqueuedCommit
    moved: int = 0
    has_failed: bool = False


class Outbox:
    """The emitted events of one run that are not stored yet.

    Args:
        pending: The uncommitted rows of the run.
        options: What all outboxes share.
    """

    def __init__(self, pending: PendingWrites, options: OutboxOptions) -> None:
        self._pending = pending
        self._options = options
        self._lock = threading.Lock()
        self._arrived: deque[tuple[OpenVisit, EventRow]] = deque()
        self._is_scheduled = False
        self._accepted = 0
        self._moved = 0
        self._stored = 0
        self._commit: _Commit | None = None

    def emit(self, emitter: Emitter, attempt: int, event_type: str, data: object) -> None:
        """Accept an event of a running attempt; in any thread.

        Args:
            emitter: The attempt.
            attempt: Its number.
            event_type: Type of the event.
            data: Its data.

        Raises:
            DefinitionError: The type is invalid, or one of the runner's own.
            SerializationError: The data have no strict JSON form, or are too large.
            AttemptEndedError: The attempt has ended.
            TooManyPendingEventsError: Too many events of the run are not stored yet.
        """
        visit, claim = emitter.visit, self._pending.claim
        problem = event_type_problem(event_type)
        if problem is not None:
            raise DefinitionError(f"emit: {problem}", step=visit.step_name)
        document, limit = encode(data), self._options.max_bytes
        if len(document.text) * 4 > limit and document.size > limit:
            raise SerializationError(f"the data have {document.size:,} bytes as JSON, more than {limit:,}")
        metadata = f'{{"execution":{claim.epoch},"attempt":{attempt},"data":{document.text}}}'
        now = self._pending.clock.now()
        self._add(emitter, attempt, EventRow(event_type, visit.step_name, now, metadata, visit.path))

    def settle(self) -> None:
        """Move what has arrived to the pending writes; called when an attempt has ended, in the event loop."""
        with self._lock:
            self._move()

    async def flush(self) -> None:
        """Wait until the events that were accepted so far are stored.

        Raises:
            StoreError: They could not be stored yet.
        """
        self.settle()
        target = self._moved
        while self._stored < target:
            commit = self._commit
            if commit is None or commit.has_failed:
                commit = self._enqueue()
            await commit.enqueued.future()
            self._end(commit)
            if commit.has_failed:
                error = getattr(commit.enqueued.error, "error", commit.enqueued.error)
                raise error if isinstance(error, StoreError) else StoreError(str(error))

    def _add(self, emitter: Emitter, attempt: int, event: EventRow) -> None:
        with self._lock:
            emitter.check_running(attempt)
            if not self._options.stores or not self._pending.records_events:
                return
            if self._accepted - self._stored >= self._options.max_events and self._is_full():
                raise TooManyPendingEventsError(self._pending.claim.run_id, self._options.max_events)
            if threading.get_ident() != self._options.thread and not self._is_scheduled:
                self._schedule(emitter, attempt)
            self._accepted += 1
            self._arrived.append((emitter.visit, event))
            if threading.get_ident() == self._options.thread:
                self._move()

    def _is_full(self) -> bool:
        """Whether so many events are left. After a failed commit the count of stored ones may be behind."""
        left = len(self._arrived) + self._pending.entry_count + self._pending.drained_count
        return left >= self._options.max_events

    def _schedule(self, emitter: Emitter, attempt: int) -> None:
        try:
            self._options.loop.call_soon_threadsafe(self._move_arrived)
        except RuntimeError:  # the event loop is closed
            raise AttemptEndedError(self._pending.claim.run_id, emitter.visit.path, attempt) from None
        self._is_scheduled = True

    def _move_arrived(self) -> None:
        with self._lock:
            self._is_scheduled = False
            self._move()

    def _move(self) -> None:
        """Add what has arrived to the pending writes, each event after the start of its visit, and enqueue them."""
        pending, arrived = self._pending, self._arrived
        if not arrived:
            return
        has_ended = pending.end is not None
        while arrived:
            visit, event = arrived.popleft()
            self._moved += 1
            if not has_ended:
                pending.flush_visit(visit)
                pending.add_events(event)
        if not has_ended:
            self._enqueue()

    def _enqueue(self) -> _Commit:
        enqueued, commit = self._options.enqueue(self._pending), self._commit
        if commit is None or commit.enqueued is not enqueued:
            commit = self._commit = _Commit(enqueued)
            ended = commit
            enqueued.future().add_done_callback(lambda _: self._end(ended))
        commit.moved = self._moved
        return commit

    def _end(self, commit: _Commit) -> None:
        if commit.enqueued.error is None:
            self._stored = max(self._stored, commit.moved)
        else:
            commit.has_failed = True
