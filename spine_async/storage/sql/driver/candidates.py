"""The ready runs that a claim has read, and the choice among them within the limits of their queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from spine_async._model.queue_room import Room

DEPTH = 2000
"""Number of ready runs of a queue that are searched for one without a key, if the first ones have keys without room."""

_SPARE = 20  # for runs whose keys have no room, or whose rows are locked


class Candidate(NamedTuple):
    """A ready run; they sort in the order in which they are claimed."""

    priority: int
    turn: float
    key: int
    queue: str
    queue_key: str | None
    is_new: bool


def choose(candidates: Iterable[Candidate], rooms: Mapping[str, Room], limit: int) -> list[int]:
    """The keys of the runs that come first and for which there is room; uses the room.

    Args:
        candidates: The ready runs.
        rooms: The room in the queues with limits, by name.
        limit: Maximum number of runs.
    """
    keys: list[int] = []
    for each in sorted(candidates):
        if len(keys) == limit:
            break
        room = rooms.get(each.queue)
        if room is None or room.take(each.queue_key, is_new=each.is_new):
            keys.append(each.key)
    return keys


def window(room: Room, wanted: int) -> int:
    """How many ready runs of a queue a claim reads first if it wants this number of runs."""
    return _SPARE + (wanted if room.per_key is None else 2 * (wanted + len(room.full_keys)))


def hides_others(part: Collection[Candidate], size: int, room: Room, wanted: int) -> bool:
    """Whether keys without room may hide runs behind a window of this size that could be claimed."""
    most = room.per_key
    if most is None or len(part) < size:
        return False
    full = set(room.full_keys)
    by_key = Counter(each.queue_key for each in part if each.queue_key not in full)
    return sum(count if key is None else min(count, most) for key, count in by_key.items()) < wanted
