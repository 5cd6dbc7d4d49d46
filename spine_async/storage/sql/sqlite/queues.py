"""The limits of queues as functions of a plain `sqlite3.Connection`.

A run that is held uses a slot of its queue: there is no other record of it. Claims are made in write transactions, of
which there is one at a time, so what they count is exact.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from spine_async._model.queue import LISTED_FOR, Queue
from spine_async._model.queue_room import QueueUse, Room
from spine_async.storage.boot_clock import BootTime
from spine_async.storage.sql.schema.due_columns import turn_at
from spine_async.storage.sql.schema.rows import iso_timestamp
from spine_async.storage.sql.sqlite.jobs import fetch

# From one owner to the next through the index, so that held runs of other queues are not read.
_HELD = (
    "WITH RECURSIVE owners(name) AS (SELECT (SELECT min(owner) FROM core_workflow_runs WHERE owner IS NOT NULL) "
    "UNION ALL SELECT (SELECT min(owner) FROM core_workflow_runs WHERE owner > name) FROM owners "
    "WHERE name IS NOT NULL) "
    "SELECT r.owner = ?, r.queue_key, count(*) FROM owners CROSS JOIN core_workflow_runs r "
    "ON r.owner = owners.name AND r.queue = ? WHERE r.owner IS NOT NULL AND NOT r.ready GROUP BY 1, 2"
)
_BEGUN = "SELECT id, claimed_at, boot, seconds, runs FROM core_workflow_first_claims WHERE queue = ?"
_LEFT = "DELETE FROM core_workflow_first_claims WHERE id = ?"
_RECORD = "INSERT INTO core_workflow_first_claims (queue, claimed_at, boot, seconds, runs) VALUES (?, ?, ?, ?, ?)"

_LIST = (
    "INSERT INTO core_workflow_queues (queue, listed_at) VALUES (?, ?) "
    "ON CONFLICT (queue) DO UPDATE SET listed_at = excluded.listed_at"
)
_LISTED_SINCE = "SELECT queue FROM core_workflow_queues WHERE listed_at > ?"
_NEXT_WORKFLOW = "SELECT min(workflow_name) FROM core_workflow_runs WHERE ready AND workflow_name > ?"
_NEXT_QUEUE = "SELECT min(queue) FROM core_workflow_runs WHERE ready AND workflow_name = ? AND queue > ?"
_FIRST_TURN = (
    "SELECT turn FROM core_workflow_runs WHERE ready AND workflow_name = ? AND queue = ? "
    "ORDER BY priority, turn LIMIT 1"
)


def room_of(
    connection: sqlite3.Connection,
    queue: Queue,
    owner: str,
    now: BootTime,
    *,
    besides: tuple[str | None, bool] | None = None,
) -> Room:
    """The room that is left in a queue.

    Args:
        connection: In a write transaction, if the answer is to be exact.
        queue: The queue with its limits.
        owner: The owner that claims.
        now: The reading of the boot clock.
        besides: Key of a held run that is about to change its owner, and whether the claiming owner holds it; the run
            is not counted.
    """
    use = _use(connection, queue, owner, now)
    return Room(queue, use if besides is None else use.without(besides[0], is_here=besides[1]))


def record_first_claims(connection: sqlite3.Connection, queue: Queue, runs: int, now: BootTime) -> None:
    """Record that runs of a queue have begun, if it has a rate, and forget those that have left its window."""
    if queue.rate is None or runs == 0:
        return
    connection.execute(_RECORD, (queue.name, iso_timestamp(datetime.now(UTC)), now.boot, now.seconds, runs))
    ages = [(int(str(row[0])), _age(row[1], row[2], row[3], now)) for row in fetch(connection, _BEGUN, (queue.name,))]
    connection.executemany(_LEFT, [(key,) for key, age in ages if age >= queue.rate.seconds])


def list_queues(connection: sqlite3.Connection, queues: Iterable[str]) -> None:
    """Record that a working runner works on these queues."""
    at = iso_timestamp(datetime.now(UTC))
    connection.executemany(_LIST, [(each, at) for each in queues])


def unlisted_queues(connection: sqlite3.Connection, listed: Collection[str]) -> list[str]:
    """The queues whose next run has waited for longer than `LISTED_FOR`, and that no runner has listed since."""
    since = datetime.now(UTC) - timedelta(seconds=LISTED_FOR)
    known = {str(row[0]) for row in fetch(connection, _LISTED_SINCE, (iso_timestamp(since),))} | set(listed)
    turn, found = turn_at(since, was_started=False), set[str]()
    for workflow in _following(connection, _NEXT_WORKFLOW):
        for queue in _following(connection, _NEXT_QUEUE, workflow):
            if queue not in known and float(str(fetch(connection, _FIRST_TURN, (workflow, queue))[0][0])) < turn:
                found.add(queue)
    return sorted(found)


def _following(connection: sqlite3.Connection, query: str, *values: object) -> Iterator[str]:
    """The texts that the query finds one after the other, each through the index."""
    text: object = ""
    while (text := fetch(connection, query, (*values, text))[0][0]) is not None:
        yield str(text)


def _use(connection: sqlite3.Connection, queue: Queue, owner: str, now: BootTime) -> QueueUse:
    held = held_here = 0
    by_key: dict[str, int] = {}
    if queue.limits_held:
        for is_here, key, count in fetch(connection, _HELD, (owner, queue.name)):
            held += int(str(count))
            held_here += int(str(count)) if is_here else 0
            if key is not None:
                by_key[str(key)] = by_key.get(str(key), 0) + int(str(count))
    begun, leaves_in = _begun(connection, queue, now)
    return QueueUse(held, held_here, by_key, begun, leaves_in)


def _begun(connection: sqlite3.Connection, queue: Queue, now: BootTime) -> tuple[int, float | None]:
    """How many runs have begun within the window, and in how many seconds the first of them leaves it."""
    if queue.rate is None:
        return 0, None
    rows = [(_age(row[1], row[2], row[3], now), int(str(row[4]))) for row in fetch(connection, _BEGUN, (queue.name,))]
    within = [(age, runs) for age, runs in rows if age < queue.rate.seconds]
    if not within:
        return 0, None
    return sum(runs for _, runs in within), queue.rate.seconds - max(age for age, _ in within)


def _age(at: object, boot: object, seconds: object, now: BootTime) -> float:
    """Seconds since a first claim; by the wall clock if the host was restarted since."""
    if boot == now.boot:
        return now.seconds - float(str(seconds))
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(str(at))).total_seconds())
    except ValueError:  # not written by this library
        return 0.0
