"""Queries that list and count runs.

Theory of operation: two indexes contain the runs in the order of a listing, one by status, and one by workflow and
status. A query has one branch for each status that the runs can have. Each branch reads one range of an index, and
stops at the limit. The runs of a listing are the first ones of all branches together. So the cost does not depend on
the number of stored runs.

Children of one run, runs of one owner and ids with a prefix have indexes of their own, which do not have the order of
a listing. With such a condition there is one branch, and `|| ''` keeps the databases from reading the indexes by
status.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import TextClause, text

from spine_async._model.document import quote
from spine_async._model.run_filter import DOCUMENTS, RunFilter, end_of_prefix
from spine_async._model.status import RunStatus
from spine_async.storage.sql.schema import checkpoints_view
from spine_async.storage.sql.schema.lease import IS_LEASED_SQL
from spine_async.storage.sql.schema.rows import RUN_COLUMNS, escaped_text, iso_timestamp, unchanged_timestamp

_PARTITIONS = {"sqlite": checkpoints_view.SQLITE, "postgresql": checkpoints_view.POSTGRES}


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """A query with the values of its parameters."""

    text: TextClause
    values: Mapping[str, object]


def list_runs(chosen: RunFilter, dialect: str) -> BoundQuery:
    """The runs that match the filter: `RUN_COLUMNS` and `is_leased`, in the order of the listing."""
    values = dict[str, object]()
    order = "place_at, place" if chosen.is_oldest_first else "place_at DESC, place DESC"
    branch = (
        "SELECT * FROM (SELECT created_at AS place_at, id AS place FROM core_workflow_runs WHERE {condition} "
        f"ORDER BY {order} LIMIT {int(chosen.limit)}) {{name}}"
    )
    conditions = [condition for _, condition in _branches(chosen, dialect, values)]
    branches = " UNION ALL ".join(
        branch.format(condition=condition, name=f"b{number}") for number, condition in enumerate(conditions)
    )
    # A cross join, so that SQLite reads the places first.
    query = (
        f"SELECT {_columns(chosen)}, {IS_LEASED_SQL[dialect]} FROM "
        f"(SELECT * FROM ({branches}) found ORDER BY {order} LIMIT {int(chosen.limit)}) chosen "
        f"CROSS JOIN core_workflow_runs WHERE id = place ORDER BY {order}"
    )
    return BoundQuery(text(query), values)


def count_runs(chosen: RunFilter, dialect: str) -> BoundQuery:
    """The numbers of matching runs by status: the status and the number, which may be 0.

    A condition with an index of its own is counted beyond the limit.
    """
    values: dict[str, object] = {"most": chosen.limit}
    # In the order of an index. PostgreSQL would expect to find enough runs of a frequent status at the start of the
    # table, which contains the oldest runs.
    until_limit = "ORDER BY created_at, id LIMIT :most"
    counts = (
        f"SELECT status, count(*) AS runs FROM core_workflow_runs WHERE {condition} GROUP BY status"
        if status is None
        else f"SELECT '{status.value}' AS status, count(*) AS runs FROM "
        f"(SELECT 1 FROM core_workflow_runs WHERE {condition} {until_limit}) counted"
        for status, condition in _branches(chosen, dialect, values)
    )
    return BoundQuery(text(" UNION ALL ".join(counts)), values)


def _columns(chosen: RunFilter) -> str:
    left_out = () if chosen.with_documents else DOCUMENTS
    return ", ".join("''" if name in left_out else f'"{name}"' for name in RUN_COLUMNS)


def _branches(chosen: RunFilter, dialect: str, values: dict[str, object]) -> Iterator[tuple[RunStatus | None, str]]:
    """The status and the condition of each branch; adds the values of the parameters. A status of None is any."""
    statuses = chosen.statuses
    own = (chosen.parent_run_id, chosen.owner, chosen.run_id_prefix)
    has_own_index = any(each is not None for each in own)
    conditions = list(
        _conditions(chosen, dialect, values, "(workflow_name || '')" if has_own_index else "workflow_name")
    )
    if not statuses:
        yield None, "1 = 0"
    elif has_own_index:
        listed = ", ".join(f"'{each.value}'" for each in statuses)
        yield None, " AND ".join([*conditions, f"(status || '') IN ({listed})"])
    else:
        for status in statuses:
            yield status, " AND ".join([f"status = '{status.value}'", *conditions])


def _conditions(chosen: RunFilter, dialect: str, values: dict[str, object], workflow_name: str) -> Iterator[str]:
    for column, value in (
        (workflow_name, chosen.workflow_name),
        ("queue", chosen.queue),
        ("queue_key", chosen.queue_key),
        ("parent_run_id", chosen.parent_run_id),
        ("owner", chosen.owner),
        ("stop_reason", escaped_text(chosen.stop_reason)),
        ("error_category", chosen.error_category),
    ):
        if value is not None:
            yield f"{column} = :{_bind(values, value)}"
    if chosen.run_id_prefix is not None:
        yield from _prefix(chosen.run_id_prefix, values)
    timestamp: Callable[[datetime], object] = iso_timestamp if dialect == "sqlite" else unchanged_timestamp
    for column, comparison, moment in (
        ("created_at", ">=", chosen.created_from),
        ("created_at", "<", chosen.created_until),
        ("completed_at", ">=", chosen.ended_from),
        ("completed_at", "<", chosen.ended_until),
    ):
        if moment is not None:
            yield f"{column} {comparison} :{_bind(values, timestamp(moment))}"
    if chosen.cursor is not None:
        at, key = _bind(values, timestamp(chosen.cursor.created_at)), _bind(values, chosen.cursor.key)
        yield f"(created_at, id) {'>' if chosen.is_oldest_first else '<'} (:{at}, :{key})"
    if chosen.is_leased is not None:
        yield IS_LEASED_SQL[dialect] if chosen.is_leased else f"NOT {IS_LEASED_SQL[dialect]}"
    for name, value in chosen.partition.items():
        yield _has_entry(_PARTITIONS[dialect], quote(name), value, values)


def _prefix(prefix: str, values: dict[str, object]) -> Iterator[str]:
    yield f"run_id >= :{_bind(values, prefix)}"
    end = end_of_prefix(prefix)
    if end is not None:
        yield f"run_id < :{_bind(values, end)}"


def _has_entry(dialect: checkpoints_view.CheckpointsDialect, name: str, value: str, values: dict[str, object]) -> str:
    """Condition for an entry of the partition. Only partitions that contain the text of the entry are parsed."""
    partition = '"partition"'
    given_name, given_value = f":{_bind(values, name)}", f":{_bind(values, value)}"
    position = dialect.position(partition, ":" + _bind(values, f"{name}:{value}"))
    entry = (
        f"SELECT 1 FROM {dialect.members(partition, 'entry')} WHERE {dialect.key('entry')} = "
        f"{dialect.same_key(given_name)} AND {dialect.text('entry', partition)} = {dialect.same_text(given_value)}"
    )
    return f"CASE WHEN {position} > 0 THEN EXISTS ({entry}) ELSE false END"


def _bind(values: dict[str, object], value: object) -> str:
    """Add the value of a parameter; returns the parameter's name."""
    name = f"p{len(values)}"
    values[name] = value
    return name
