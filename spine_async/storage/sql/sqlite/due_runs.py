"""Claims of ready runs by workers, and their states, as functions of a plain `sqlite3.Connection`.

The index of ready runs is read once for each workflow and queue, from the first turn on. So the runs of other workflows
and queues, and those that are not ready, cost nothing.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from spine_async._model.due import DueRequest, DueRun, DueRuns, RunState
from spine_async._model.queue_room import Room, soonest
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import StoredRun
from spine_async._model.status import RunStatus
from spine_async.errors import CorruptRecordError
from spine_async.storage.boot_clock import BootTime, boot_time, seconds_until
from spine_async.storage.sql.driver.candidates import DEPTH, Candidate, choose, hides_others, window
from spine_async.storage.sql.schema.rows import RUN_COLUMNS, Row, iso_timestamp, read_run
from spine_async.storage.sql.sqlite.jobs import fetch
from spine_async.storage.sql.sqlite.leases import CLAIMS_AFTER, NOT_DUE
from spine_async.storage.sql.sqlite.queues import record_first_claims, room_of

_log = logging.getLogger("spine_async")

_READY = (
    "FROM core_workflow_runs WHERE ready AND workflow_name = ? AND queue = ? AND workflow_version <= ? "
    "{more}ORDER BY priority, turn"
)
_ROW = "priority, COALESCE(turn, 0), id, queue, queue_key, epoch = 0"
_IS_ANY_READY = f"SELECT 1 {_READY.format(more='')} LIMIT 1"
_CANDIDATES = f"SELECT {_ROW} {_READY.format(more='')} LIMIT ?"
_CONTINUING = f"SELECT {_ROW} {_READY.format(more='AND turn < 0 ')} LIMIT ?"
# From one key to the next through the index, so that the many runs of a key without room are not read.
_BY_KEY = (
    "WITH RECURSIVE keys(name) AS (SELECT (SELECT min(queue_key) FROM core_workflow_runs WHERE ready "
    "AND queue_key IS NOT NULL AND queue = ?) UNION ALL SELECT (SELECT min(queue_key) FROM core_workflow_runs "
    "WHERE ready AND queue_key IS NOT NULL AND queue = ? AND queue_key > name) FROM keys WHERE name IS NOT NULL) "
    f"SELECT {_ROW.replace('id', 'r.id')} FROM keys CROSS JOIN core_workflow_runs r ON r.id IN (SELECT n.id "
    "FROM core_workflow_runs n INDEXED BY core_workflow_runs_ready_keys WHERE n.ready AND n.queue_key IS NOT NULL "
    "AND n.queue = ? AND n.queue_key = keys.name "
    "AND n.workflow_name = ? AND n.workflow_version <= ? ORDER BY n.priority, n.turn LIMIT ?)"
)
_WITHOUT_KEY = f"SELECT * FROM ({_CANDIDATES}) WHERE queue_key IS NULL"
_IS_LEASED = "COALESCE(owner IS NOT NULL AND lease_boot = ? AND leased_until > ?, 0)"
_RUN = (
    f"""SELECT due_boot, due_seconds, {", ".join(f'"{name}"' for name in RUN_COLUMNS)}, {_IS_LEASED} """
    "FROM core_workflow_runs WHERE id = ?"
)
_CLAIM = (
    "UPDATE core_workflow_runs SET epoch = epoch + 1, owner = ?, lease_boot = ?, leased_until = ?, commit_id = ?, "
    "updated_at = ?, workflow_version = CASE workflow_version WHEN 0 THEN ? ELSE workflow_version END, "
    "started_at = CASE epoch WHEN 0 THEN ? ELSE started_at END, "
    f"claims_since_progress = {CLAIMS_AFTER}, "
    f"status = CASE status WHEN 'waiting' THEN status ELSE 'running' END, {NOT_DUE} WHERE id = ?"
)
# Without the owner too: its lease has ended, so that each sweep would make the run ready again.
_SET_ASIDE = (
    f"UPDATE core_workflow_runs SET owner = NULL, lease_boot = NULL, leased_until = NULL, {NOT_DUE} WHERE id = ?"
)
_CLAIMED_EARLIER = "SELECT id FROM core_workflow_runs WHERE owner = ? AND commit_id = ?"
_STATE = (
    f"SELECT run_id, status, epoch, owner, {_IS_LEASED}, owner IS NULL AND (ready OR CASE WHEN due_boot = ? "
    "THEN due_seconds <= ? ELSE COALESCE(due_at <= ?, 0) END), next_seq FROM core_workflow_runs WHERE run_id = ?"
)


class _Ready(NamedTuple):
    """A run that may be claimed, and the seconds until it was due, as in `DueRun`."""

    run: StoredRun
    due_in: float | None


def look(connection: sqlite3.Connection, request: DueRequest) -> DueRuns | None:
    """The empty answer of `claim_due`, or None if it may find a run; needs no write transaction."""
    limited = {each.name for each in request.limits}
    has_waiting = False
    for place in _places(request):
        if fetch(connection, _IS_ANY_READY, place):
            if place[1] not in limited:
                return None
            has_waiting = True
    if fetch(connection, _CLAIMED_EARLIER, (request.owner, request.token)):
        return None
    if not has_waiting:
        return DueRuns()
    keys, rooms = _choose(connection, request, request.limit, boot_time())
    return None if keys else DueRuns(room_in=soonest(rooms.values()))


def claim_due(connection: sqlite3.Connection, request: DueRequest) -> DueRuns:
    """Claim ready runs, and return those again that an earlier attempt of the request has claimed."""
    now = boot_time()
    earlier = [int(str(key)) for (key,) in fetch(connection, _CLAIMED_EARLIER, (request.owner, request.token))]
    claimed = [_claimed_earlier(connection, key, now) for key in earlier]
    begun: Counter[str] = Counter()
    keys, rooms = _choose(connection, request, request.limit - len(earlier), now)
    if rooms:
        request = request.at_now()
    for key in keys:
        due = _readable(connection, key, now)
        if due is not None:
            claimed.append(_claim(connection, request, key, due, now))
            begun[due.run.queue] += due.run.epoch == 0
    for queue in request.limits:
        record_first_claims(connection, queue, begun[queue.name], boot_time())
    return DueRuns(claimed, room_in=soonest(rooms.values()))


def states(connection: sqlite3.Connection, run_ids: Sequence[str]) -> list[RunState]:
    """The states of the runs that are stored."""
    now = boot_time()
    clock = (now.boot, now.seconds) * 2
    at = iso_timestamp(datetime.now(UTC))
    rows = [row for run_id in dict.fromkeys(run_ids) for row in fetch(connection, _STATE, (*clock, at, run_id))]
    return [_state(row) for row in rows]


def _places(request: DueRequest) -> Iterator[tuple[str, str, int]]:
    """The ranges of the index of ready runs in which the request may find runs."""
    for workflow, version in request.workflows.items():
        for queue in ("", *(queue for queue in request.queues if queue)):
            yield workflow, queue, version


def _choose(
    connection: sqlite3.Connection, request: DueRequest, limit: int, now: BootTime
) -> tuple[list[int], dict[str, Room]]:
    """The keys of the runs that come first and for which there is room, and the room that they leave."""
    if limit <= 0:
        return [], {}
    rooms = {each.name: room_of(connection, each, request.owner, now) for each in request.limits}
    candidates: set[Candidate] = set()
    for place in _places(request):
        room = rooms.get(place[1])
        if room is None:
            candidates.update(_read_candidates(connection, _CANDIDATES, (*place, limit)))
        elif room.free > 0:
            candidates |= _limited(connection, place, room, min(limit, room.free))
    return choose(candidates, rooms, limit), rooms


def _limited(connection: sqlite3.Connection, place: tuple[str, str, int], room: Room, wanted: int) -> set[Candidate]:
    """Ready runs of a queue with limits, among which are the first ones for which there is room."""
    size = window(room, wanted)
    parts = [set(_read_candidates(connection, _CANDIDATES, (*place, size)))]
    if room.new < wanted:  # those that continue may be behind new runs
        parts.append(set(_read_candidates(connection, _CONTINUING, (*place, size))))
    if room.per_key is None or not any(hides_others(part, size, room, wanted) for part in parts):
        return set().union(*parts)
    workflow, queue, version = place
    full = set(room.full_keys)
    by_key = (queue, queue, queue, workflow, version, min(wanted, room.per_key))
    with_key = (each for each in _read_candidates(connection, _BY_KEY, by_key) if each.queue_key not in full)
    return {*with_key, *_read_candidates(connection, _WITHOUT_KEY, (*place, DEPTH))}


def _read_candidates(connection: sqlite3.Connection, query: str, values: Sequence[object]) -> Iterator[Candidate]:
    for priority, turn, key, queue, queue_key, is_new in fetch(connection, query, values):
        run_key = None if queue_key is None else str(queue_key)
        yield Candidate(int(str(priority)), float(str(turn)), int(str(key)), str(queue), run_key, bool(is_new))


def _readable(connection: sqlite3.Connection, key: int, now: BootTime) -> _Ready | None:
    """The run; None if a column holds an invalid value. Such a run is due no longer, so that it does not come again."""
    try:
        return _read(connection, key, now)
    except CorruptRecordError as exc:
        _log.error("%s; the run is not executed until it is resumed", exc)
        connection.execute(_SET_ASIDE, (key,))
        return None


def _read(connection: sqlite3.Connection, key: int, now: BootTime) -> _Ready:
    boot, seconds, *row = fetch(connection, _RUN, (now.boot, now.seconds, key))[0]
    return _Ready(read_run(tuple(row)), seconds_until(boot, seconds, now))


def _claim(connection: sqlite3.Connection, request: DueRequest, key: int, due: _Ready, now: BootTime) -> DueRun:
    run, at = due.run, iso_timestamp(request.at)
    lease = (request.owner, now.boot, now.seconds + request.ttl, request.token)
    connection.execute(_CLAIM, (*lease, at, request.workflows[run.workflow_name], at, key))
    return DueRun(run, Claim(run_id=run.run_id, key=key, epoch=run.epoch + 1, next_seq=run.next_seq), due.due_in)


def _claimed_earlier(connection: sqlite3.Connection, key: int, now: BootTime) -> DueRun:
    run, _ = _read(connection, key, now)
    return DueRun(run, Claim(run_id=run.run_id, key=key, epoch=run.epoch, next_seq=run.next_seq))


def _state(row: Row) -> RunState:
    run_id, status, epoch, owner, is_leased, is_due, next_seq = row
    state = RunStatus(str(status))
    return RunState(
        run_id=str(run_id),
        status=state,
        epoch=int(str(epoch)),
        owner=None if owner is None else str(owner),
        is_leased=bool(is_leased),
        is_due=bool(is_due) and not state.is_final,
        next_seq=int(str(next_seq)),
    )
