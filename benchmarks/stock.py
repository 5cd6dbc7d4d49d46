"""Fills a database with many ended runs by plain SQL, so that a million runs take a minute and not an hour.

One in fifty runs failed, and only among the oldest quarter; one in two hundred was stopped. A few of the newest ones
have not ended. A tenth of the runs belong to each of ten workflows, except for a hundred runs of the workflow `rare`,
which are the oldest ones.
"""

# ruff: noqa: S608 (statements are built from constants of this module and numbers)

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import psycopg

STEPS = 5
"""Usual number of steps of each run."""

FIRST_ID = 10_000_000
UNFINISHED = 30
RARE = 100

_OF_STOCK = "WHERE r.run_id >= 'run-' AND r.run_id < 'run.'"  # `.` is the next character after `-`
_FIRST_AT = 1_767_225_600  # 2026-01-01, in seconds
_TIMES = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%f', {seconds}, 'unixepoch') || '000Z'",
    "postgres": "to_timestamp({seconds})",
}


def run_id(number: int) -> str:
    """Id of the run with this number; the runs are numbered from 1, the oldest first."""
    return f"run-{FIRST_ID + number}"


def fill(backend: str, name: str, runs: int, steps: int = STEPS) -> None:
    """Store so many runs in a database that has the tables; collects statistics on PostgreSQL.

    Args:
        backend: `sqlite` or `postgres`.
        name: Path of the file, or libpq URL.
        runs: Number of runs, more than 130.
        steps: Steps of each run.
    """
    if backend == "sqlite":
        with closing(sqlite3.connect(name, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for statement in _statements(backend, runs, steps):
                connection.execute(statement)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    else:
        with psycopg.connect(name, autocommit=True) as driver:
            for statement in _statements(backend, runs, steps):
                driver.execute(statement.encode())
            driver.execute("VACUUM ANALYZE")


def _statements(backend: str, runs: int, steps: int) -> Iterator[str]:
    at = _TIMES[backend].format(seconds=f"{_FIRST_AT} + i")
    ended_at = _TIMES[backend].format(seconds=f"{_FIRST_AT} + i + 1")
    has_ended, has_failed = f"i <= {runs - UNFINISHED}", f"i % 50 = 0 AND i <= {runs // 4}"
    status = (
        f"CASE WHEN i > {runs - UNFINISHED} THEN CASE i % 3 WHEN 0 THEN 'pending' WHEN 1 THEN 'running' "
        f"ELSE 'waiting' END WHEN {has_failed} THEN 'failed' WHEN i % 200 = 7 THEN 'stopped' ELSE 'completed' END"
    )
    numbers = f"WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {runs})"
    columns = {
        "run_id": f"'run-' || CAST({FIRST_ID} + i AS TEXT)",
        "workflow_name": f"CASE WHEN i <= {RARE} THEN 'rare' ELSE 'flow-' || CAST(i % 10 AS TEXT) END",
        "status": status,
        **dict.fromkeys(("created_at", "started_at"), at),
        "updated_at": ended_at,
        "completed_at": f"CASE WHEN {has_ended} THEN {ended_at} END",
        "error": f"CASE WHEN {has_failed} THEN 'ValueError: no such order' END",
        "error_category": f"CASE WHEN {has_failed} THEN 'INTERNAL' END",
        "queue": "CASE WHEN i % 4 = 0 THEN 'mail' ELSE '' END",
        "queue_key": "CASE WHEN i % 4 = 0 THEN 'tenant-' || CAST(i % 100 AS TEXT) END",
        "partition": "'{\"symbol\":\"S' || CAST(i % 1000 AS TEXT) || '\"}'",
        "params": '\'{"n":\' || CAST(i AS TEXT) || \',"text":"of an ordinary length, as an order has it"}\'',
        **dict.fromkeys(("initial_outputs", "initial_quality", "metadata"), "'{}'"),
        **dict.fromkeys(("fingerprint", "params_hash", "request_hash"), "'0123456789abcdef'"),
        **dict.fromkeys(("epoch", "workflow_version"), "1"),
        "next_seq": str(2 * steps + 3),
        "claims_since_progress": "0",
        "total_steps": str(steps),
        "commit_id": "'0123456789ab'",
    }
    names = ", ".join(f'"{name}"' for name in columns)
    yield f"INSERT INTO core_workflow_runs ({names}) {numbers} SELECT {', '.join(columns.values())} FROM numbers"
    yield _steps(steps)
    yield (
        'INSERT INTO core_workflow_event_log (run, seq, "timestamp", event_type, metadata) '
        "SELECT r.id, e.seq, r.created_at, e.event_type, '{}' FROM core_workflow_runs r CROSS JOIN "
        "(SELECT 1 AS seq, 'workflow_started' AS event_type "
        f"UNION ALL SELECT {2 * steps + 2}, 'workflow_completed') e {_OF_STOCK}"
    )


def _steps(count: int) -> str:
    columns = {
        "run": "r.id",
        **dict.fromkeys(("started_at", "completed_at"), "r.updated_at"),
        "duration_ms": "1.5",
        "seq": "2 * step + 3",
        "started_seq": "2 * step + 2",
        **dict.fromkeys(("epoch", "attempts"), "1"),
        "output_size": "30",
        "ends_item": "(1 = 0)",
        "records_events": "(1 = 1)",
        **dict.fromkeys(("path", "step_name"), "'step-' || CAST(step AS TEXT)"),
        "scope": "''",
        "step_type": "'lambda'",
        "status": "'completed'",
        "commit_id": "'0123456789ab'",
        "output": "'{\"total\":' || CAST(r.id AS TEXT) || '}'",
    }
    names = ", ".join(f'"{name}"' for name in columns)
    steps = " UNION ALL ".join(f"SELECT {step} AS step" for step in range(count))
    return (
        f"INSERT INTO core_workflow_steps ({names}) SELECT {', '.join(columns.values())} "
        f"FROM core_workflow_runs r CROSS JOIN ({steps}) steps {_OF_STOCK}"
    )
