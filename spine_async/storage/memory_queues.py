"""The limits of queues in the store in memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Protocol

from spine_async._model.queue import LISTED_FOR, Queue
from spine_async._model.queue_room import QueueUse, Room
from spine_async._model.run_row import StoredRun
from spine_async.ports import Clock


class _Run(Protocol):
    stored: StoredRun
    is_ready: bool

    @property
    def is_held(self) -> bool: ...


class MemoryQueues:
    """First claims of queues with a rate, and the queues that runners list.

    Args:
        clock: Source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        self._listed_mono: dict[str, float] = {}

    def room_of(self, queue: Queue, owner: str, runs: Iterable[_Run], *, besides: _Run | None = None) -> Room:
        """The room that is left in a queue; `besides` is a run that is not counted."""
        held = [
            each.stored
            for each in runs
            if each.is_held and not each.is_ready and each.stored.queue == queue.name and each is not besides
        ]
        by_key = Counter(each.queue_key for each in held if each.queue_key is not None)
        now, per = self._clock.monotonic(), queue.rate.seconds if queue.rate is not None else 0.0
        begun = [(at, count) for at, count in self._begun[queue.name] if now - at < per]
        leaves_in = per - (now - begun[0][0]) if begun else None
        here = sum(each.owner == owner for each in held)
        return Room(queue, QueueUse(len(held), here, by_key, sum(count for _, count in begun), leaves_in))

    def record_first_claims(self, queue: Queue, runs: int) -> None:
        """Record that runs of a queue have begun, if it has a rate, and forget those that have left its window."""
        if queue.rate is None or runs == 0:
            return
        now, per = self._clock.monotonic(), queue.rate.seconds
        begun = [each for each in self._begun[queue.name] if now - each[0] < per]
        self._begun[queue.name] = [*begun, (now, runs)]

    def listed_at(self) -> dict[str, datetime]:
        """When the queues were last listed, by the wall clock."""
        now, now_mono = self._clock.now(), self._clock.monotonic()
        return {queue: now - timedelta(seconds=now_mono - at) for queue, at in self._listed_mono.items()}

    def unlisted(self, listed: Collection[str], waiting: Collection[str]) -> list[str]:
        """Record the listed queues; the waiting ones that nobody has listed for a minute."""
        now = self._clock.monotonic()
        self._listed_mono.update(dict.fromkeys(listed, now))
        known = {queue for queue, at in self._listed_mono.items() if now - at < LISTED_FOR}
        return sorted(set(waiting) - known)
