"""What is asked of the tables, apart from the hot path."""

# ruff: noqa: S608 (texts are put together from names in this package only)

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from sqlalchemy import ClauseElement, not_, select, text, tuple_

from spine_async._model.record import RunFilter
from spine_async.storage.sql.schema.lease import IS_LEASED, LEASED_TEXTS
from spine_async.storage.sql.schema.rows import EVENT_COLUMNS, PAST_FIELDS, RUN_COLUMNS, VISIT_FIELDS, columns_of
from spine_async.storage.sql.schema.tables import UNDER_WAY, runs

Query: TypeAlias = ClauseElement


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


_OF_RUN = "run = (SELECT id FROM core_workflow_runs WHERE run_id = :run_id)"
_VISITS = f"SELECT {_listed(VISIT_FIELDS)} FROM core_workflow_steps WHERE {_OF_RUN}"

# Telling the events of a visit takes no documents; they stay where they are.
_DOCUMENTS = frozenset({"output", "opening", "updates", "quality"})
_TELLING_FIELDS = ", ".join("NULL" if name in _DOCUMENTS else f'"{name}"' for name in VISIT_FIELDS)

# As text: whoever resumes a run in a new process would wait longer for constructs to be compiled than for answers.

LOADS: Mapping[str, Query] = {
    dialect: text(f"SELECT {_listed(RUN_COLUMNS)}, {is_leased} FROM core_workflow_runs WHERE run_id = :run_id")
    for dialect, is_leased in LEASED_TEXTS.items()
}
"""The query for one run, by the name of the dialect."""

VISITS: Query = text(f"{_VISITS} AND scope = '' ORDER BY seq")
PAST_VISITS: Query = text(
    f"SELECT {_listed(PAST_FIELDS)} FROM core_workflow_steps WHERE {_OF_RUN} AND scope = '' ORDER BY seq"
)

# A range rather than LIKE: an index serves it, and no name has to be escaped.
VISITS_BELOW: Query = text(f"{_VISITS} AND path >= :from_path AND path < :to_path ORDER BY seq")

LAST_NUMBER: Query = text("SELECT id, next_seq FROM core_workflow_runs WHERE run_id = :run_id")

EVENT_LOG: Query = text(
    f"SELECT {_listed(EVENT_COLUMNS)} FROM core_workflow_event_log WHERE run = :key AND seq > :after "
    "ORDER BY seq LIMIT :most"
)

EVENT_VISITS: Query = text(
    f"SELECT {_TELLING_FIELDS} FROM core_workflow_steps WHERE run = :key AND seq >= :from_seq ORDER BY seq LIMIT :most"
)


def list_runs(chosen: RunFilter) -> Query:
    """The runs that fit the filter, the newest first."""
    query = select(*columns_of(runs, RUN_COLUMNS), IS_LEASED).order_by(runs.c.created_at.desc(), runs.c.id.desc())
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


LASTING = frozenset({*LOADS.values(), VISITS, PAST_VISITS, VISITS_BELOW, LAST_NUMBER, EVENT_LOG, EVENT_VISITS})
"""The queries that stay the same, as opposed to those made for one call."""
