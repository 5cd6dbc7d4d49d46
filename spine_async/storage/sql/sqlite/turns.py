"""The turns of runs with a key, as functions of a plain `sqlite3.Connection` in a write transaction.

See `_model.turn.TURN_STEP` for the theory.
"""

from __future__ import annotations

import sqlite3

from spine_async._model.turn import TURN_STEP
from spine_async.storage.sql.sqlite.jobs import fetch

_FIRST_TURN = (
    "SELECT turn FROM core_workflow_runs WHERE ready AND queue_key IS NOT NULL AND queue = ? AND priority = ? "
    "AND turn > 0 ORDER BY turn LIMIT 1"
)
_LAST_TURN = (
    "SELECT turn FROM core_workflow_runs WHERE ready AND queue_key IS NOT NULL AND queue = ? AND queue_key = ? "
    "AND priority = ? AND turn > 0 ORDER BY turn DESC LIMIT 1"
)


class Turns:
    """Gives turns to the runs of one transaction, in their order."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._floors: dict[tuple[str, int], float] = {}
        self._next: dict[tuple[str, str, int], float] = {}

    def take(self, queue: str, key: str, priority: int, due_turn: float) -> float:
        """The turn of the next run of a key.

        Args:
            queue: The queue.
            key: The key.
            priority: The priority.
            due_turn: The turn that the run would have without a key.
        """
        place = (queue, key, priority)
        turn = self._next.get(place)
        if turn is None:
            last = self._read(_LAST_TURN, place)
            floor = self._floor(queue, priority, due_turn)
            turn = floor if last is None else max(floor, last + TURN_STEP)
        self._next[place] = turn + TURN_STEP
        return turn

    def _floor(self, queue: str, priority: int, due_turn: float) -> float:
        """The turn of the run that comes next in the queue."""
        floor = self._floors.get((queue, priority))
        if floor is None:
            first = self._read(_FIRST_TURN, (queue, priority))
            floor = self._floors[queue, priority] = due_turn if first is None else first
        return floor

    def _read(self, query: str, values: tuple[object, ...]) -> float | None:
        rows = fetch(self._connection, query, values)
        return float(str(rows[0][0])) if rows else None
