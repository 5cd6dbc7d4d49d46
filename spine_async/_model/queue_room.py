"""What the limits of a queue leave for further runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spine_async._model.queue import Queue

_UNLIMITED = sys.maxsize


@dataclass(frozen=True, slots=True)
class QueueUse:
    """How much of the limits of a queue is used.

    A run is held if it has an owner, and no sweep has found that its owner has lost it.

    Attributes:
        held: Number of held runs of the queue.
        held_here: Number of those that the claiming owner holds.
        held_by_key: Numbers of held runs by key, without those that have no key.
        begun: Number of runs that have begun within the window of the rate.
        leaves_in: Seconds until the first of these leaves the window.
    """

    held: int = 0
    held_here: int = 0
    held_by_key: Mapping[str, int] = field(default_factory=dict)
    begun: int = 0
    leaves_in: float | None = None

    def without(self, key: str | None, *, is_here: bool) -> QueueUse:
        """The use without one held run with this key."""
        by_key = dict(self.held_by_key)
        if key is not None and by_key.get(key, 0):
            by_key[key] -= 1
        return QueueUse(self.held - 1, self.held_here - is_here, by_key, self.begun, self.leaves_in)


class Room:
    """The room that is left in a queue. It shrinks while runs are chosen.

    Args:
        queue: The queue with its limits.
        use: What is used.

    Attributes:
        free: How many runs may be claimed.
        new: How many of them may be runs that have not begun.
    """

    def __init__(self, queue: Queue, use: QueueUse) -> None:
        self.free = min(_left(queue.concurrency, use.held), _left(queue.per_process, use.held_here))
        self.new = _left(queue.rate.runs if queue.rate is not None else None, use.begun)
        self._queue = queue
        self._leaves_in = use.leaves_in
        self._by_key = dict(use.held_by_key)
        self._refused_new = False

    @property
    def per_key(self) -> int | None:
        return self._queue.per_key

    @property
    def full_keys(self) -> list[str]:
        """The keys of which no further run may be claimed."""
        most = self.per_key
        return [] if most is None else [key for key, held in self._by_key.items() if held >= most]

    @property
    def room_in(self) -> float | None:
        """Seconds until the rate lets another run begin; None if it has refused none."""
        rate = self._queue.rate
        if rate is None or not self._refused_new:
            return None
        return rate.seconds if self._leaves_in is None else self._leaves_in

    def take(self, key: str | None, *, is_new: bool) -> bool:
        """Use room for a run; whether there was any.

        Args:
            key: Key of the run, or None.
            is_new: Whether it has not begun, so that the rate counts it.
        """
        if self.free <= 0:
            return False
        if self.per_key is not None and key is not None and self._by_key.get(key, 0) >= self.per_key:
            return False
        if is_new and self.new <= 0:
            self._refused_new = True
            return False
        self.free -= 1
        self.new -= is_new
        if key is not None:
            self._by_key[key] = self._by_key.get(key, 0) + 1
        return True


def soonest(rooms: Iterable[Room]) -> float | None:
    """Seconds until the first of the queues may have room again by its rate; None if no rate has refused a run."""
    return min((seconds for room in rooms if (seconds := room.room_in) is not None), default=None)


def _left(most: int | None, used: int) -> int:
    return _UNLIMITED if most is None else max(0, most - used)
