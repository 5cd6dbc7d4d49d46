"""Queries that read one run, its visits and its events."""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from sqlalchemy import ClauseElement, text

from spine_async._model.visit_row import ONCE_NAME
from spine_async.storage.sql.schema.lease import IS_LEASED_SQL
from spine_async.storage.sql.schema.rows import EVENT_COLUMNS, PAST_FIELDS, RUN_COLUMNS, VISIT_FIELDS
from spine_async.storage.sql.schema.tables import (
    IS_DUE_LATER,
    IS_DUE_LATER_BY_WALL,
    IS_DUE_LATER_IN_BOOT,
    IS_HELD,
    IS_PARKED,
    IS_READY,
)

Query: TypeAlias = ClauseElement
MAX_SEQ = 2**31 - 1
"""No number of a row is greater."""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


_OF_RUN = "run = (SELECT id FROM core_workflow_runs WHERE run_id = :run_id)"
_VISITS = f"SELECT {_listed(VISIT_FIELDS)} FROM core_workflow_steps WHERE {_OF_RUN}"
# Recorded calls are read with their scope only, except one that also stores the item of a map.
_IS_SHOWN = f"(step_name <> '{ONCE_NAME}' OR item_params IS NOT NULL)"
_PAGE = "AND seq > :after ORDER BY seq LIMIT :most"
_IS_FINISHED = "status IN ('completed', 'skipped')"

# Deriving events needs no documents, so these columns are not read.
_DOCUMENTS = frozenset({"output", "item_params", "updates", "appends", "quality"})
_EVENT_FIELDS = ", ".join("NULL" if name in _DOCUMENTS else f'"{name}"' for name in VISIT_FIELDS)

# Plain text, because SQLAlchemy would take longer to compile expressions than the database to answer. That matters
# when a new process resumes a run.

LOAD_RUN: Mapping[str, Query] = {
    dialect: text(f"SELECT {_listed(RUN_COLUMNS)}, {is_leased} FROM core_workflow_runs WHERE run_id = :run_id")
    for dialect, is_leased in IS_LEASED_SQL.items()
}
"""The query for one run, by dialect name."""

_COUNT = (
    "SELECT '{what}', queue, {detail}, count(*), {at} "
    "FROM (SELECT queue{columns} FROM core_workflow_runs{hint} WHERE {condition}{order} LIMIT :most) r GROUP BY 2, 3"
)
_NO_TIME = "CAST(NULL AS float)"
# The turn of a run that was never claimed is the time at which it became due; that of others is negative.
_BRANCHES = (
    ("due", IS_READY, ", turn", "''", "min(CASE WHEN turn >= 0 THEN turn END)"),
    ("parked", IS_PARKED, "", "''", _NO_TIME),
    ("held", f"{IS_HELD} AND NOT ready", ", owner", "owner", _NO_TIME),
)
_LISTED = "SELECT 'listed', queue, '', 0, {seconds} FROM core_workflow_queues"


def _backlog(hints: Mapping[str, str], later: Mapping[str, object], orders: Mapping[str, str], seconds: str) -> Query:
    """The numbers of runs of each kind.

    Args:
        hints: SQLite chooses other indexes, and looks up each run of them in the table, without hints.
        later: Name and condition of the indexes of the runs that are due later.
        orders: PostgreSQL reads the partial index of a kind only for its order, if there are no statistics.
        seconds: Expression for the time at which a queue was listed, in seconds since 1970.
    """
    counts = [
        _COUNT.format(
            what=what,
            hint=hints.get(what, ""),
            order=orders.get(what, ""),
            condition=condition,
            columns=columns,
            detail=detail,
            at=at,
        )
        for what, condition, columns, detail, at in _BRANCHES
    ]
    counts += [
        _COUNT.format(
            what="later",
            hint=hint,
            order=orders.get("later", ""),
            condition=condition,
            columns=", status",
            detail="status",
            at=_NO_TIME,
        )
        for hint, condition in later.items()
    ]
    return text(" UNION ALL ".join([*counts, _LISTED.format(seconds=seconds)]))


_INDEX = " INDEXED BY core_workflow_runs_"
BACKLOG: Mapping[str, Query] = {
    "postgresql": _backlog(
        {},
        {"": IS_DUE_LATER},
        {
            "due": " ORDER BY workflow_name",
            "parked": " ORDER BY queue",
            "held": " ORDER BY owner",
            "later": " ORDER BY due_at",
        },
        "CAST(extract(epoch FROM listed_at) AS float)",
    ),
    "sqlite": _backlog(
        {each: f"{_INDEX}{each}" for each in ("parked", "held")},
        {f"{_INDEX}due": IS_DUE_LATER_BY_WALL, f"{_INDEX}due_in_boot": IS_DUE_LATER_IN_BOOT},
        {},
        "(julianday(listed_at) - 2440587.5) * 86400",
    ),
}
"""The runs that have not ended, by queue: the kind, the queue, the owner or the status, the number, and a time in
seconds since 1970. Reads at most `most` entries of each of the partial indexes.
"""

# The metadata are JSON text of an object whose first member is the name of the signal, see `_engine.handlers.signal`.
_SIGNAL = '{"signal":%'
_OPEN_WAITS = (
    "SELECT r.run_id, e.path, e.step_name, e.timestamp, e.metadata FROM {ids} "
    "JOIN core_workflow_runs r ON r.run_id = ids.value{collate} JOIN core_workflow_event_log e ON e.run = r.id "
    "WHERE e.event_type = 'step_started' AND e.metadata LIKE '{signal}' AND NOT EXISTS (SELECT 1 "
    "FROM core_workflow_steps s WHERE s.run = r.id AND s.path IN (e.path, {outermost})) "
    "ORDER BY r.run_id, e.path, e.seq"
)
OPEN_WAITS: Mapping[str, Query] = {
    "sqlite": text(
        _OPEN_WAITS.format(
            ids="json_each(:ids) ids",
            collate="",
            signal=_SIGNAL,
            outermost="substr(e.path, 1, min(instr(e.path || '[', '['), instr(e.path || '/', '/')) - 1)",
        )
    ),
    "postgresql": text(
        _OPEN_WAITS.format(
            ids="json_array_elements_text(CAST(:ids AS json)) ids(value)",
            collate=' COLLATE "C"',
            signal=_SIGNAL,
            outermost="substr(e.path, 1, least(strpos(e.path || '[', '['), strpos(e.path || '/', '/')) - 1)",
        )
    ),
}
"""The announced visits of some runs that wait for a signal and have not ended, by dialect name. A visit that was
announced several times has several rows.
"""

WORKFLOW_NAMES: Query = text(
    "WITH RECURSIVE names(name) AS (SELECT min(workflow_name) FROM core_workflow_runs UNION ALL "
    "SELECT (SELECT min(workflow_name) FROM core_workflow_runs WHERE workflow_name > name) FROM names "
    "WHERE name IS NOT NULL) SELECT name FROM names WHERE name IS NOT NULL"
)
"""From one name to the next through an index."""

VISITS: Query = text(f"{_VISITS} AND scope = '' {_PAGE}")
"""A page of the entries of the run's own steps."""
VISIT_OUTLINES: Query = text(f"SELECT {_EVENT_FIELDS} FROM core_workflow_steps WHERE {_OF_RUN} AND scope = '' {_PAGE}")
"""The same without the columns of documents."""
# A failed item has no row of its own, but an event. The range of paths serves the index; the scope decides.
ITEM_STATES: Query = text(
    "SELECT item_index, max(CASE WHEN ends_item THEN 1 ELSE 0 END), sum(duration_ms), max(attempts), NULL, NULL "
    f"FROM core_workflow_steps WHERE {_OF_RUN} AND path >= :from_path AND path < :to_path AND item_index IS NOT NULL "
    "AND scope = :path || '[' || CAST(item_index AS text) || ']' AND status IN ('completed', 'skipped', 'failed') "
    "GROUP BY item_index UNION ALL "
    f"SELECT NULL, 1, 0, 0, path, metadata FROM core_workflow_event_log WHERE {_OF_RUN} "
    "AND event_type = 'map_item_failed' AND path >= :from_path AND path < :to_path"
)
"""The items of a map: index, whether it has ended, milliseconds, attempts; path and metadata of events of failures."""
PAST_VISITS: Query = text(
    f"SELECT {_listed(PAST_FIELDS)}, seq FROM core_workflow_steps WHERE {_OF_RUN} AND scope = '' {_PAGE}"
)
# Without a condition on the path, so that every page is a range of the primary key and no page is sorted.
VISIT_PAGE: Query = text(f"{_VISITS} AND {_IS_SHOWN} {_PAGE}")

# Many scopes in one query, each with the range of its paths. PostgreSQL needs the collation of the paths.
_RANGES = {
    "sqlite": ("(SELECT value FROM json_each(:ranges)) ranges", ""),
    "postgresql": ("json_array_elements(CAST(:ranges AS json)) ranges(value)", ' COLLATE "C"'),
}
SCOPES_PAGE: Mapping[str, Query] = {
    dialect: text(
        f"SELECT {_listed(VISIT_FIELDS)} FROM {ranges} CROSS JOIN core_workflow_steps WHERE {_OF_RUN} "
        f"AND scope = (ranges.value ->> 0){collate} AND path >= (ranges.value ->> 1){collate} "
        f"AND path < (ranges.value ->> 2){collate} {_PAGE}"
    )
    for dialect, (ranges, collate) in _RANGES.items()
}
"""The query for a page of the entries of some scopes, by dialect name."""
FINISHED_VISIT: Query = text(f"{_VISITS} AND path = :path AND {_IS_FINISHED}")
LAST_VISIT: Query = text(
    f"{_VISITS} AND scope = '' AND step_name = :step_name AND path >= :from_path AND path < :to_path "
    f"AND {_IS_FINISHED} ORDER BY seq DESC LIMIT 1"
)

# A range instead of LIKE, because it uses the index and needs no escaping.
_IN_RANGE = "(path >= :from_path AND path < :to_path OR path >= :from_child AND path < :to_child)"
VISITS_BELOW: Query = text(f"{_VISITS} AND {_IS_SHOWN} AND {_IN_RANGE} AND seq > :after ORDER BY seq")
FIRST_BELOW: Query = text(f"SELECT min(seq) FROM core_workflow_steps WHERE {_OF_RUN} AND {_IN_RANGE}")

KEY_AND_NEXT_SEQ: Query = text("SELECT id, next_seq FROM core_workflow_runs WHERE run_id = :run_id")

EVENT_LOG: Query = text(
    f"SELECT {_listed(EVENT_COLUMNS)} FROM core_workflow_event_log WHERE run = :key AND seq > :after "
    "ORDER BY seq LIMIT :most"
)

LAST_EVENT: Query = text(
    f"SELECT {_listed(EVENT_COLUMNS)} FROM core_workflow_event_log WHERE {_OF_RUN} AND event_type = :event_type "
    "AND path = :path ORDER BY seq DESC LIMIT 1"
)

VISITS_FOR_EVENTS: Query = text(
    f"SELECT {_EVENT_FIELDS} FROM core_workflow_steps WHERE run = :key AND seq >= :from_seq ORDER BY seq LIMIT :most"
)


CONSTANT_QUERIES = frozenset(
    {
        *LOAD_RUN.values(),
        *SCOPES_PAGE.values(),
        *(
            VISITS,
            PAST_VISITS,
            VISITS_BELOW,
            FIRST_BELOW,
            VISIT_PAGE,
            FINISHED_VISIT,
            VISIT_OUTLINES,
            ITEM_STATES,
            LAST_VISIT,
        ),
        *(KEY_AND_NEXT_SEQ, EVENT_LOG, LAST_EVENT, VISITS_FOR_EVENTS),
    }
)
"""The queries that do not depend on a call's arguments."""
