"""SQL statements for claims by workers, for sweeps, and for the states of runs.

The conditions repeat those of the partial indexes in `schema/tables.py`, so that each query reads only what is ready,
due later, held, or new in the inbox. An index needs `statement_timestamp()`, because `clock_timestamp()` may change
between two rows.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from sqlalchemy import TIMESTAMP

from spine_async._model.turn import EXECUTED_BEFORE
from spine_async.storage.sql.postgres.queue_statements import turns
from spine_async.storage.sql.postgres.release_statements import STARTED_TURN
from spine_async.storage.sql.postgres.statements import CLAIMS_AFTER, IS_LEASED, NOT_DUE
from spine_async.storage.sql.schema.rows import RUN_COLUMNS
from spine_async.storage.sql.schema.tables import runs

MOST = 5000
"""Runs that one statement of a sweep changes, so that it holds their locks for a short time."""

_UTC = "to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS {name}"


def _readable(column: str) -> str:
    """The column; a timestamp as text, because asyncpg gives no row at all if Python cannot represent one of them."""
    name = f'"{column}"'
    return _UTC.format(name=name) if isinstance(runs.c[column].type, TIMESTAMP) else name


_RUN = (
    f"due_boot, due_seconds, {', '.join(map(_readable, RUN_COLUMNS))}, (owner IS NOT NULL AND {IS_LEASED}) AS is_leased"
)

_CANDIDATES = (
    "SELECT c.id, c.priority, c.turn FROM unnest($4::text[], $5::integer[]) AS w(name, version) "
    "CROSS JOIN unnest($8::text[]) AS q(name) CROSS JOIN LATERAL (SELECT n.id, n.priority, n.turn "
    "FROM core_workflow_runs n WHERE n.ready AND n.workflow_name = w.name AND n.queue = q.name "
    "AND n.workflow_version <= w.version ORDER BY n.priority, n.turn LIMIT $9::bigint) c "
    "ORDER BY c.priority, c.turn, c.id LIMIT $9::bigint"
)

_PICK_FIRST = (
    "SELECT r.* FROM candidates c JOIN core_workflow_runs r ON r.id = c.id WHERE r.ready "
    "ORDER BY c.priority, c.turn, c.id LIMIT greatest(0, $3::bigint - (SELECT count FROM earlier)) "
    "FOR NO KEY UPDATE OF r SKIP LOCKED"
)
_CLAIMED = (
    "claimed AS (UPDATE core_workflow_runs SET epoch = epoch + 1, owner = $1::text, "
    "status = CASE status WHEN 'waiting' THEN status ELSE 'running' END, "
    "leased_until = clock_timestamp() + make_interval(secs => $7::float8), commit_id = $2::text, updated_at = $6, "
    "workflow_version = CASE workflow_version WHEN 0 THEN p.known ELSE workflow_version END, "
    f"started_at = CASE epoch WHEN 0 THEN $6 ELSE started_at END, claims_since_progress = {CLAIMS_AFTER}, {NOT_DUE} "
    "FROM (SELECT picked.id AS key, w.version AS known FROM picked "
    "JOIN unnest($4::text[], $5::integer[]) AS w(name, version) ON w.name = picked.workflow_name) p "
    "WHERE id = p.key RETURNING id AS key) "
)
_CLAIMED_RUNS = f"SELECT turn, {_RUN} FROM picked JOIN claimed ON claimed.key = picked.id"

CLAIM_DUE = (
    "WITH earlier AS MATERIALIZED (SELECT count(*) AS count FROM core_workflow_runs "
    "WHERE owner = $1::text AND commit_id = $2::text), "
    f"candidates AS MATERIALIZED ({_CANDIDATES}), "
    # The condition is repeated, because it is checked again for a row that another claim has changed meanwhile.
    f"picked AS MATERIALIZED ({_PICK_FIRST}), {_CLAIMED}"
    "SELECT earlier.count AS earlier, (SELECT count(*) FROM candidates) AS seen, run.* FROM earlier LEFT JOIN "
    f"({_CLAIMED_RUNS}) run ON true ORDER BY run.priority, run.turn, run.id"
)
"""Arguments: owner, token, limit, workflows, versions, time, ttl, queues, number of candidates.

Returns the runs as they were before the claim, with the number of runs that the token has claimed before, and the
number of candidates; one row without a run if none was claimed. Rows that others have locked are passed over.
"""

CLAIM_CHOSEN = (
    "WITH picked AS MATERIALIZED (SELECT r.* FROM core_workflow_runs r WHERE r.id = ANY($3::bigint[]) AND r.ready "
    f"ORDER BY r.id FOR NO KEY UPDATE OF r SKIP LOCKED), {_CLAIMED}"
    f"SELECT * FROM ({_CLAIMED_RUNS}) run ORDER BY run.priority, run.turn, run.id"
)
"""Arguments: owner, token, keys, workflows, versions, time, ttl. Returns the runs as they were before the claim."""

CLAIMED_EARLIER = f"SELECT {_RUN} FROM core_workflow_runs WHERE owner = $1 AND commit_id = $2"

SET_ASIDE = (
    f"UPDATE core_workflow_runs SET owner = NULL, leased_until = NULL, status = $3, {NOT_DUE} "
    "WHERE id = $1 AND commit_id = $2"
)
"""Arguments: key, token of the claim, and status. Undoes the claim of a run that cannot be read."""

_LATER = "owner IS NULL AND NOT ready AND due_at IS NOT NULL"
_IN_BOOT = "owner IS NULL AND NOT ready AND due_boot IS NOT NULL AND due_boot = $1::text"
_DUE_BY_WALL = f"{_LATER} AND due_at <= statement_timestamp() AND due_boot IS DISTINCT FROM $1::text"
_DUE_IN_BOOT = f"{_IN_BOOT} AND due_seconds <= $2::float8"
_HAS_ENDED = f"NOT {IS_LEASED}"

# With ORDER BY and LIMIT instead of EXISTS. For EXISTS a plan that is made without the arguments reads the whole table,
# because it expects to meet a row that is due soon.
_FIRST = "(SELECT {column} FROM core_workflow_runs WHERE {condition} ORDER BY {column} LIMIT 1)"
_FIRST_DUE = _FIRST.format(column="due_at", condition=_DUE_BY_WALL)
_FIRST_LATER = _FIRST.format(
    column="due_at", condition=f"{_LATER} AND due_at > statement_timestamp() AND due_at < 'infinity'"
)
_FIRST_IN_BOOT = _FIRST.format(column="due_seconds", condition=_IN_BOOT)

# From one owner to the next through the index. A plan for GROUP BY reads the whole table while the server has no
# statistics of it, which is so for some time after many runs were created.
_OWNERS = (
    "WITH RECURSIVE owners AS ((SELECT owner FROM core_workflow_runs WHERE owner IS NOT NULL ORDER BY owner LIMIT 1) "
    "UNION ALL SELECT (SELECT r.owner FROM core_workflow_runs r WHERE r.owner > o.owner ORDER BY r.owner LIMIT 1) "
    "FROM owners o WHERE o.owner IS NOT NULL) "
)
_HELD = (
    "SELECT array_agg(o.owner) AS owners, array_agg(has_ended) AS have_ended, "
    "extract(epoch FROM min(next_end) - clock_timestamp())::float8 AS next_end FROM owners o CROSS JOIN LATERAL "
    f"(SELECT bool_or({_HAS_ENDED}) AS has_ended, min(leased_until) FILTER (WHERE {IS_LEASED}) AS next_end "
    "FROM core_workflow_runs r WHERE r.owner = o.owner AND NOT r.ready) run WHERE has_ended IS NOT NULL"
)
# A scalar subquery, which the planner cannot turn into a join: without statistics of the inbox, it would read all runs.
_OWNER_OF_MESSAGE = "(SELECT r.owner FROM core_workflow_runs r WHERE r.id = i.run)"
LOOK = (
    f"{_OWNERS}SELECT {_FIRST_DUE} IS NOT NULL AS is_due, {_FIRST_IN_BOOT} - $2::float8 AS next_in_boot, "
    f"extract(epoch FROM {_FIRST_LATER} - statement_timestamp())::float8 AS next_by_wall, "
    # Also true for a message whose run was deleted at the same time, which is cleared away.
    f"EXISTS (SELECT 1 FROM core_workflow_inbox i WHERE i.unseen AND {_OWNER_OF_MESSAGE} IS NULL) AS has_news, "
    f"held.* FROM ({_HELD}) held"
)
"""Arguments: the boot, and the reading of its clock.

Returns one row: what is due, when the next run is due, and which owners hold runs.
"""

# A sweep that a failure of the server undoes is repeated, so it does not wait for the disk. The setting is made before
# the first row is locked, because each row that is locked has been joined with its result.
_UNSYNCED = "unsynced AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))"

# A new run with a key gets its turn when it becomes ready.
_READY_BY_TIME = (
    f"WITH {_UNSYNCED}, "
    "due AS MATERIALIZED (SELECT id, queue, queue_key, priority, turn, {order} AS place "
    "FROM core_workflow_runs, unsynced "
    "WHERE {condition} ORDER BY {order} LIMIT {most} FOR NO KEY UPDATE OF core_workflow_runs SKIP LOCKED), "
    f"{turns('due', 'id', 'queue_key IS NOT NULL AND turn > 0')} "
    "UPDATE core_workflow_runs r SET ready = true, turn = COALESCE(due_turns.turn, r.turn) "
    "FROM due LEFT JOIN due_turns ON due_turns.id = due.id WHERE r.id = due.id"
)
READY_BY_WALL = _READY_BY_TIME.format(condition=_DUE_BY_WALL, order="due_at", most=MOST)
"""Argument: the boot, whose clock counts for other runs."""
READY_IN_BOOT = _READY_BY_TIME.format(condition=_DUE_IN_BOOT, order="due_seconds", most=MOST)
"""Arguments: the boot, and the reading of its clock."""

# An array and a scalar subquery, for the same reason as above.
READY_BY_NEWS = (
    f"WITH {_UNSYNCED}, seen AS MATERIALIZED (SELECT r.id FROM core_workflow_runs r, unsynced WHERE r.owner IS NULL "
    "AND r.id = ANY (ARRAY(SELECT run FROM core_workflow_inbox WHERE unseen)) "
    f"ORDER BY r.id LIMIT {MOST} FOR NO KEY UPDATE OF r SKIP LOCKED), "
    f"woken AS (UPDATE core_workflow_runs r SET ready = true, turn = {STARTED_TURN} FROM seen WHERE r.id = seen.id "
    "AND NOT r.ready AND r.status = 'waiting'), "
    "orphans AS (DELETE FROM core_workflow_inbox i WHERE i.unseen "
    "AND (SELECT r.id FROM core_workflow_runs r WHERE r.id = i.run) IS NULL) "
    "UPDATE core_workflow_inbox i SET unseen = false FROM seen WHERE i.unseen AND i.run = seen.id"
)
"""Wakes the parked runs that have a message which no sweep has seen.

A message is marked as seen only while the row of its run is locked and has no owner. So a message that this statement
sees, and that its run did not see when it was parked, cannot be forgotten: a run that is claimed and parked after the
snapshot of this statement reads the message when it is parked. The messages of a run that was held, or whose row was
locked, are looked at by the next sweep.
"""

READY_OF_OWNERS = (
    f"WITH {_UNSYNCED}, "
    "lost AS MATERIALIZED (SELECT id FROM core_workflow_runs, unsynced WHERE owner IS NOT NULL AND NOT ready "
    f"AND (owner = ANY($1::text[]) OR (owner = ANY($2::text[]) AND {_HAS_ENDED} AND run_id <> ALL($3::text[]))) "
    "ORDER BY id FOR NO KEY UPDATE OF core_workflow_runs SKIP LOCKED) "
    f"UPDATE core_workflow_runs r SET ready = true, turn = {STARTED_TURN} "
    f"+ CASE r.status WHEN 'running' THEN {EXECUTED_BEFORE} ELSE 0 END FROM lost WHERE r.id = lost.id"
)
"""Arguments: owners that are gone; owners whose runs are due once their leases have ended; ids of runs of these owners
that stay held."""

STATES = (
    f"SELECT run_id, status, epoch, owner, (owner IS NOT NULL AND {IS_LEASED}) AS is_leased, "
    "owner IS NULL AND status IN ('pending', 'running', 'waiting') AND (ready OR CASE WHEN due_boot = $2::text "
    "THEN due_seconds <= $3::float8 ELSE COALESCE(due_at <= clock_timestamp(), false) END) AS is_due, next_seq "
    "FROM core_workflow_runs WHERE run_id = ANY($1::text[])"
)
"""Arguments: ids, the boot, and the reading of its clock."""
