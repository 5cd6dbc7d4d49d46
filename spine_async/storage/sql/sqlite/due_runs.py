"""Claims of ready runs by workers, and their states, as functions of a plain `sqlite3.Connection`.

The index of ready runs is read once for each workflow and queue, from the first turn on. So the runs of other workflows
and queues, and those that are not ready, cost nothing.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from heapq import nsmallest

from spine_async._model.due import DueRequest, DueRun, RunState
from spine_async._model.record import Claim, StoredRun
from spine_async._model.status import RunStatus
from spine_async.errors import CorruptRecordError
from spine_async.storage.sql.driver.boot_clock import BootTime, boot_time
from spine_async.storage.sql.schema.rows import RUN_COLUMNS, Row, iso_timestamp, read_run
from spine_async.storage.sql.sqlite.jobs import fetch
from spine_async.storage.sql.sqlite.leases import CLAIMS_AFTER, NOT_DUE

_log = logging.getLogger("spine_async")

_READY = (
    "FROM core_workflow_runs WHERE ready AND workflow_name = ? AND queue = ? AND workflow_version <= ? "
    "ORDER BY priority, turn"
)
_IS_ANY_READY = f"SELECT 1 {_READY} LIMIT 1"
_CANDIDATES = f"SELECT priority, COALESCE(turn, 0), id {_READY} LIMIT ?"
_IS_LEASED = "COALESCE(owner IS NOT NULL AND lease_boot = ? AND leased_until > ?, 0)"
_RUN = f"""SELECT {", ".join(f'"{name}"' for name in RUN_COLUMNS)}, {_IS_LEASED} FROM core_workflow_runs WHERE id = ?"""
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


def is_any_ready(connection: sqlite3.Connection, request: DueRequest) -> bool:
    """Whether `claim_due` may find a run; needs no write transaction."""
    found = (fetch(connection, _IS_ANY_READY, each) for each in _places(request))
    return any(found) or bool(fetch(connection, _CLAIMED_EARLIER, (request.owner, request.token)))


def claim_due(connection: sqlite3.Connection, request: DueRequest) -> list[DueRun]:
    """Claim ready runs, and return those again that an earlier attempt of the request has claimed."""
    now = boot_time()
    earlier = [int(str(key)) for (key,) in fetch(connection, _CLAIMED_EARLIER, (request.owner, request.token))]
    claimed = [_claimed_earlier(connection, key, now) for key in earlier]
    for key in _first_ready(connection, request, request.limit - len(earlier)):
        run = _readable(connection, key, now)
        if run is not None:
            claimed.append(_claim(connection, request, key, run, now))
    return claimed


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


def _first_ready(connection: sqlite3.Connection, request: DueRequest, limit: int) -> list[int]:
    """The keys of the runs that come first."""
    if limit <= 0:
        return []
    places = (fetch(connection, _CANDIDATES, (*place, limit)) for place in _places(request))
    candidates = ((int(str(row[0])), float(str(row[1])), int(str(row[2]))) for rows in places for row in rows)
    return [key for _, _, key in nsmallest(limit, candidates)]


def _readable(connection: sqlite3.Connection, key: int, now: BootTime) -> StoredRun | None:
    """The run; None if a column holds an invalid value. Such a run is due no longer, so that it does not come again."""
    try:
        return _read(connection, key, now)
    except CorruptRecordError as exc:
        _log.error("%s; the run is not executed until it is resumed", exc)
        connection.execute(_SET_ASIDE, (key,))
        return None


def _read(connection: sqlite3.Connection, key: int, now: BootTime) -> StoredRun:
    return read_run(fetch(connection, _RUN, (now.boot, now.seconds, key))[0])


def _claim(connection: sqlite3.Connection, request: DueRequest, key: int, run: StoredRun, now: BootTime) -> DueRun:
    at = iso_timestamp(request.at)
    lease = (request.owner, now.boot, now.seconds + request.ttl, request.token)
    connection.execute(_CLAIM, (*lease, at, request.workflows[run.workflow_name], at, key))
    return DueRun(run, Claim(run_id=run.run_id, key=key, epoch=run.epoch + 1, next_seq=run.next_seq))


def _claimed_earlier(connection: sqlite3.Connection, key: int, now: BootTime) -> DueRun:
    run = _read(connection, key, now)
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
