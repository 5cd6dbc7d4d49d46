"""SQL statements for the limits of queues, and for the turns of runs with a key."""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from spine_async._model.turn import TURN_STEP

LOCK = (
    "SELECT set_config('lock_timeout', $2::text, true), "
    "set_config('idle_in_transaction_session_timeout', $3::text, true), "
    "(SELECT count(pg_advisory_xact_lock(l.key)) FROM unnest($1::bigint[]) AS l(key))"
)
"""Locks queues until the end of the transaction. Arguments: their locks in ascending order, and two time limits in ms.

A statement of its own: what a later statement counts is then exact. The second limit frees the queues if this process
is suspended in the middle of the transaction.
"""

WAITING = (
    "SELECT q.name FROM unnest($1::text[]) AS q(name) WHERE (SELECT r.id FROM unnest($2::text[], $3::integer[]) "
    "AS w(name, version) CROSS JOIN LATERAL (SELECT n.id FROM core_workflow_runs n WHERE n.ready "
    "AND n.workflow_name = w.name AND n.queue = q.name AND n.workflow_version <= w.version "
    "ORDER BY n.priority, n.turn LIMIT 1) r LIMIT 1) IS NOT NULL"
)
"""Arguments: queues, workflows, versions. Returns the queues in which a run is ready."""

# From one owner to the next through the index, so that held runs of other queues are not read.
_OWNERS = (
    "WITH RECURSIVE owners AS ((SELECT owner FROM core_workflow_runs WHERE owner IS NOT NULL ORDER BY owner LIMIT 1) "
    "UNION ALL SELECT (SELECT r.owner FROM core_workflow_runs r WHERE r.owner > o.owner ORDER BY r.owner LIMIT 1) "
    "FROM owners o WHERE o.owner IS NOT NULL) "
)
HELD = (
    f"{_OWNERS}SELECT q.name AS queue, o.owner = $2::text AS is_here, h.queue_key, count(*) AS runs FROM owners o "
    "CROSS JOIN unnest($1::text[]) AS q(name) CROSS JOIN LATERAL (SELECT r.queue_key FROM core_workflow_runs r "
    "WHERE r.owner = o.owner AND r.queue = q.name AND NOT r.ready AND r.run_id <> $3::text) h GROUP BY 1, 2, 3"
)
"""Arguments: queues, owner, and the id of a run that is not counted. Returns how many runs are held, by key."""

BEGUN = (
    "SELECT q.name AS queue, b.runs, b.leaves_in FROM unnest($1::text[], $2::float8[]) AS q(name, per) "
    "CROSS JOIN LATERAL (SELECT sum(c.runs)::bigint AS runs, q.per - extract(epoch FROM statement_timestamp() "
    "- min(c.claimed_at))::float8 AS leaves_in FROM core_workflow_first_claims c WHERE c.queue = q.name "
    "AND c.claimed_at > statement_timestamp() - make_interval(secs => q.per)) b WHERE b.runs IS NOT NULL"
)
"""Arguments: queues, and the windows of their rates in seconds."""

RECORD = (
    "WITH gone AS (DELETE FROM core_workflow_first_claims c USING unnest($1::text[], $3::float8[]) AS q(name, per) "
    "WHERE c.queue = q.name AND c.claimed_at < statement_timestamp() - make_interval(secs => q.per)) "
    "INSERT INTO core_workflow_first_claims (queue, claimed_at, runs) "
    "SELECT q.name, clock_timestamp(), q.runs FROM unnest($1::text[], $2::bigint[]) AS q(name, runs)"
)
"""Arguments: queues, how many runs of each have begun, and the windows of their rates in seconds."""

_KNOWN = (
    "EXISTS (SELECT 1 FROM unnest($1::text[], $2::integer[]) AS w(name, version) "
    "WHERE w.name = n.workflow_name AND n.workflow_version <= w.version)"
)
_ROW = "n.id, n.priority, n.turn, n.queue, n.queue_key, n.epoch = 0 AS is_new, n.workflow_name"
_CANDIDATES = (
    "SELECT c.* FROM unnest($1::text[], $2::integer[]) AS w(name, version) CROSS JOIN unnest($3::text[]) AS q(name) "
    f"CROSS JOIN LATERAL (SELECT {_ROW} FROM core_workflow_runs n WHERE n.ready AND n.workflow_name = w.name "
    "AND n.queue = q.name AND n.workflow_version <= w.version {more}ORDER BY n.priority, n.turn LIMIT $4::bigint) c"
)
CANDIDATES = _CANDIDATES.format(more="")
"""Arguments: workflows, versions, queues, number of runs of each workflow and queue."""
CONTINUING = _CANDIDATES.format(more="AND n.turn < 0 ")
"""The same, of runs that were claimed before."""
WITHOUT_KEY = f"SELECT * FROM ({CANDIDATES}) found WHERE queue_key IS NULL"

# A condition BETWEEN instead of =, and the order by the key, exclude the index by turn. Without statistics it costs the
# same in the plan, and the query would read the runs of all keys.
# From one key to the next through the index, so that the many runs of a key without room are not read.
BY_KEY = (
    "WITH RECURSIVE keys AS ((SELECT queue_key FROM core_workflow_runs WHERE ready AND queue_key IS NOT NULL "
    "AND queue = $3::text ORDER BY queue_key LIMIT 1) UNION ALL SELECT (SELECT r.queue_key FROM core_workflow_runs r "
    "WHERE r.ready AND r.queue_key IS NOT NULL AND r.queue = $3::text AND r.queue_key > k.queue_key "
    "ORDER BY r.queue_key LIMIT 1) FROM keys k WHERE k.queue_key IS NOT NULL) "
    f"SELECT c.* FROM keys k CROSS JOIN LATERAL (SELECT {_ROW} FROM core_workflow_runs n WHERE n.ready "
    f"AND n.queue_key IS NOT NULL AND n.queue = $3::text AND n.queue_key BETWEEN k.queue_key AND k.queue_key "
    f"AND {_KNOWN} ORDER BY n.queue_key, n.priority, n.turn LIMIT $4::bigint) c "
    "WHERE k.queue_key IS NOT NULL AND k.queue_key <> ALL($5::text[]) ORDER BY c.priority, c.turn LIMIT $6::bigint"
)
"""Arguments: workflows, versions, queue, runs of each key, keys that are left out, number of runs."""

SLOT = "SELECT queue_key, epoch = 0 AS is_new FROM core_workflow_runs WHERE run_id = $1"

_TURNS = (
    "{name}_keyed AS MATERIALIZED (SELECT {id}, queue, queue_key, priority, turn, place FROM {name} "
    "WHERE {condition}), "
    "{name}_floors AS MATERIALIZED (SELECT p.queue, p.priority, COALESCE((SELECT r.turn FROM core_workflow_runs r "
    "WHERE r.ready AND r.queue_key IS NOT NULL AND r.queue = p.queue AND r.priority = p.priority AND r.turn > 0 "
    "ORDER BY r.turn LIMIT 1), p.turn) AS turn FROM (SELECT queue, priority, min(turn) AS turn FROM {name}_keyed "
    "GROUP BY queue, priority) p), "
    "{name}_firsts AS MATERIALIZED (SELECT k.queue, k.queue_key, k.priority, greatest(f.turn, (SELECT r.turn + {step} "
    "FROM core_workflow_runs r WHERE r.ready AND r.queue_key IS NOT NULL AND r.queue = k.queue "
    "AND r.queue_key BETWEEN k.queue_key AND k.queue_key AND r.priority = k.priority AND r.turn > 0 "
    "ORDER BY r.queue_key DESC, r.priority DESC, r.turn DESC LIMIT 1)) AS turn "
    "FROM (SELECT DISTINCT queue, queue_key, priority FROM {name}_keyed) k "
    "JOIN {name}_floors f ON f.queue = k.queue AND f.priority = k.priority), "
    "{name}_turns AS MATERIALIZED (SELECT n.{id}, f.turn + {step} * (row_number() OVER (PARTITION BY n.queue, "
    "n.queue_key, n.priority ORDER BY n.place) - 1) AS turn FROM {name}_keyed n JOIN {name}_firsts f "
    "ON f.queue = n.queue AND f.queue_key = n.queue_key AND f.priority = n.priority)"
)


def turns(name: str, identifier: str, condition: str) -> str:
    """Common table expressions that give turns to the new runs with a key in the expression `name`.

    See `_model.turn.TURN_STEP` for the theory. The last expression is `<name>_turns`, with the columns `identifier` and
    `turn`. The expression `name` needs the columns `queue`, `queue_key`, `priority`, `turn` and `place`, their order.

    Args:
        name: Name of the expression.
        identifier: The column that identifies its rows.
        condition: Which of the rows get a turn; without an alias.
    """
    return _TURNS.format(name=name, id=identifier, condition=condition, step=f"{TURN_STEP}::float8")


LIST = (
    "INSERT INTO core_workflow_queues (queue, listed_at) SELECT q.name, clock_timestamp() FROM unnest($1::text[]) "
    "AS q(name) ORDER BY q.name ON CONFLICT (queue) DO UPDATE SET listed_at = excluded.listed_at "
    "WHERE core_workflow_queues.listed_at < excluded.listed_at - interval '10 s'"
)
"""Argument: queues on which a worker works. Few updates, however many workers there are."""

UNLISTED = (
    "WITH RECURSIVE places AS ((SELECT workflow_name, queue FROM core_workflow_runs WHERE ready "
    "ORDER BY workflow_name, queue LIMIT 1) UNION ALL SELECT n.* FROM places p CROSS JOIN LATERAL "
    "(SELECT r.workflow_name, r.queue FROM core_workflow_runs r WHERE r.ready "
    "AND (r.workflow_name, r.queue) > (p.workflow_name, p.queue) ORDER BY r.workflow_name, r.queue LIMIT 1) n) "
    "SELECT DISTINCT p.queue FROM places p WHERE p.queue <> '' AND p.queue <> ALL($1::text[]) "
    "AND NOT EXISTS (SELECT 1 FROM core_workflow_queues q WHERE q.queue = p.queue "
    "AND q.listed_at > clock_timestamp() - make_interval(secs => $2::float8)) "
    "AND (SELECT r.turn FROM core_workflow_runs r WHERE r.ready AND r.workflow_name = p.workflow_name "
    "AND r.queue = p.queue ORDER BY r.priority, r.turn LIMIT 1) "
    "< extract(epoch FROM statement_timestamp())::float8 - $2::float8 ORDER BY 1"
)
"""Arguments: queues that count as listed, and for how many seconds a queue counts as listed and a run as new."""
