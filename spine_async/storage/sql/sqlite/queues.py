"""The limits of queues as functions of a plain `sqlite3.Connection`.

A run that is held uses a slot of its queue: there is no other record of it. Claims are made in write transactions, of
which there is one at a time, so what they count is exact.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

from spine_async._model.queue import Queue
from spine_async._model.queue_room import QueueUse, Room
from spine_async.storage.sql.driver.boot_clock import BootTime
from spine_async.storage.sql.schema.due_columns import LISTED_FOR, turn_at
from spine_async.storage.sql.schema.rows import iso_timestamp
from spine_async.storage.sql.sqlite.jobs import fetch

# From one owner to the next through the index, so that held runs of other queues are not read.
_HELD = (
    "WITH RECURSIVE owners(name) AS (SELECT (SELECT min(owner) FROM core_workflow_runs WHERE owner IS NOT NULL) "
    "UNION ALL SELECT (SELECT min(owner) FROM core_workflow_runs WHERE owner > name) FROM owners WHERE name IS NOT NULL) "
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
_QUEUES_WITH_READY_RUNS = (
    "WITH RECURSIVE places(workflow, queue) AS (SELECT workflow_name, queue FROM (SELECT workflow_name, queue "
    "FROM core_workflow_runs WHERE ready ORDER BY workflow_name, queue LIMIT 1) UNION ALL "
    "SELECT r.workflow_name, r.queue FROM places CROSS JOIN core_workflow_runs r ON r.id = (SELECT n.id "
    "FROM core_workflow_runs n WHERE n.ready AND (n.workflow_name, n.queue) > (places.workflow, places.queue) "
    "ORDER BY n.workflow_name, n.queue LIMIT 1)) "
    "SELECT workflow, queue FROM places WHERE queue <> ''"
)
_WAITS_SINCE = "SELECT 1 FROM core_workflow_runs WHERE ready AND workflow_name = ? AND queue = ? AND turn < ? LIMIT 1"


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
    connection.executemany(_LEFT, [(key,) for key, age in ages if age >= queue.rate.per])


def list_queues(connection: sqlite3.Connection, queues: Iterable[str]) -> None:
    """Record that a working runner works on these queues."""
    at = iso_timestamp(datetime.now(UTC))
    connection.executemany(_LIST, [(each, at) for each in queues])


def unlisted_queues(connection: sqlite3.Connection, listed: Collection[str]) -> list[str]:
    """The queues with ready runs that wait for longer than `LISTED_FOR`, and that no runner has listed since."""
    since = datetime.now(UTC) - timedelta(seconds=LISTED_FOR)
    known = {str(row[0]) for row in fetch(connection, _LISTED_SINCE, (iso_timestamp(since),))} | set(listed)
    places = [(str(row[0]), str(row[1])) for row in fetch(connection, _QUEUES_WITH_READY_RUNS)]
    turn = turn_at(since, was_started=False)
    found = {
        queue
        for workflow, queue in places
        if queue not in known and fetch(connection, _WAITS_SINCE, (workflow, queue, turn))
    }
    return sorted(found)


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
    within = [(age, runs) for age, runs in rows if age < queue.rate.per]
    if not within:
        return 0, None
    return sum(runs for _, runs in within), queue.rate.per - max(age for age, _ in within)


def _age(at: object, boot: object, seconds: object, now: BootTime) -> float:
    """Seconds since a first claim; by the wall clock if the host was restarted since."""
    if boot == now.boot:
        return now.seconds - float(str(seconds))
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(str(at))).total_seconds())
    except ValueError:  # not written by this library
        return 0.0
