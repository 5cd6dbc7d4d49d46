"""What is asked of the tables, apart from the hot path."""

from __future__ import annotations

from typing import TypeAlias

from sqlalchemy import ClauseElement, Integer, Text, bindparam, not_, select, tuple_

from spine_async._model.record import RunFilter
from spine_async.storage.sql.lease import IS_LEASED
from spine_async.storage.sql.rows import EVENT_COLUMNS, RUN_COLUMNS, VISIT_COLUMNS, columns_of
from spine_async.storage.sql.schema import UNDER_WAY, event_log, runs, steps

Query: TypeAlias = ClauseElement

EVENT_VISIT_COLUMNS = tuple(
    name for name in VISIT_COLUMNS if name not in {"output", "opening", "updates", "quality", "run"}
)
"""What telling the events of a visit takes; the documents stay where they are."""

_run_id = bindparam("run_id", type_=Text())
_run_key = bindparam("key", type_=Integer())
_key_of_run = select(runs.c.id).where(runs.c.run_id == _run_id).scalar_subquery()

_RUN = (*columns_of(runs, RUN_COLUMNS), IS_LEASED)

LOAD: Query = select(*_RUN).where(runs.c.run_id == _run_id)

VISITS: Query = (
    select(*columns_of(steps, VISIT_COLUMNS))
    .where(steps.c.run == _key_of_run, steps.c.scope == "")
    .order_by(steps.c.seq)
)

VISITS_BELOW: Query = (
    select(*columns_of(steps, VISIT_COLUMNS))
    .where(
        steps.c.run == _key_of_run,
        # A range rather than LIKE: an index serves it, and no name has to be escaped.
        steps.c.path >= bindparam("from_path", type_=Text()),
        steps.c.path < bindparam("to_path", type_=Text()),
    )
    .order_by(steps.c.seq)
)

LAST_NUMBER: Query = select(runs.c.id, runs.c.next_seq).where(runs.c.run_id == _run_id)

EVENT_LOG: Query = (
    select(*columns_of(event_log, EVENT_COLUMNS))
    .where(event_log.c.run == _run_key, event_log.c.seq > bindparam("after", type_=Integer()))
    .order_by(event_log.c.seq)
    .limit(bindparam("most", type_=Integer()))
)

EVENT_VISITS: Query = (
    select(*columns_of(steps, EVENT_VISIT_COLUMNS))
    .where(steps.c.run == _run_key, steps.c.seq >= bindparam("from_seq", type_=Integer()))
    .order_by(steps.c.seq)
    .limit(bindparam("most", type_=Integer()))
)


def list_runs(chosen: RunFilter) -> Query:
    """The runs that fit the filter, the newest first."""
    query = select(*_RUN).order_by(runs.c.created_at.desc(), runs.c.id.desc())
    if chosen.workflow_name is not None:
        query = query.where(runs.c.workflow_name == chosen.workflow_name)
    if chosen.status is not None:
        query = query.where(runs.c.status == chosen.status.value)
    if chosen.is_under_way:
        query = query.where(UNDER_WAY)
    if chosen.is_leased is not None:
        query = query.where(IS_LEASED if chosen.is_leased else not_(IS_LEASED))
    if chosen.before is not None:
        mark = runs.alias("mark")
        age = select(mark.c.created_at, mark.c.id).where(mark.c.run_id == chosen.before)
        query = query.where(tuple_(runs.c.created_at, runs.c.id) < age.scalar_subquery())
    return query.limit(chosen.limit)


LASTING = frozenset({LOAD, VISITS, VISITS_BELOW, LAST_NUMBER, EVENT_LOG, EVENT_VISITS})
"""The queries that stay the same, as opposed to those made for one call."""
