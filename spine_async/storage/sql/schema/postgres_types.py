"""PostgreSQL's row types, which commits use as parameters, and the triggers that cascade a deletion.

Several rows are passed as one array of a row type. One array per column takes twice as long, because the driver checks
each value for a nested array. Triggers replace foreign keys, because a foreign key is checked for each inserted step.
This check is not needed: the fence in the same statement has locked the row of the run.

The names of the types end with the schema version that changed them, because a process of an earlier version may still
use its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import TIMESTAMP, BigInteger, Boolean, Column, Float, Integer, Table

from spine_async.storage.sql.schema.rows import EVENT_COLUMNS, NEW_RUN_COLUMNS, VISIT_COLUMNS, columns_of
from spine_async.storage.sql.schema.tables import event_log, inbox, runs, steps

_TYPES = (  # the first match applies: BigInteger is a subclass of Integer
    (BigInteger, "bigint"),
    (Integer, "integer"),
    (Boolean, "boolean"),
    (Float, "double precision"),
    (TIMESTAMP, "timestamptz"),
)


@dataclass(frozen=True, slots=True)
class RowType:
    """A composite type.

    Attributes:
        columns: Names and types of its columns, in order.
    """

    name: str
    columns: Sequence[tuple[str, str]]

    @property
    def names(self) -> str:
        return self.listed("")

    def listed(self, prefix: str) -> str:
        """The column names, each with the prefix."""
        return ", ".join(f'{prefix}"{name}"' for name, _ in self.columns)

    def arguments(self, first: int) -> list[str]:
        """One scalar argument per column, numbered from `first`."""
        return [f"${number}::{kind}" for number, (_, kind) in enumerate(self.columns, first)]

    def unnest(self, number: int, alias: str) -> str:
        """FROM item with the rows of the array argument with this number."""
        return f"unnest(${number}::{self.name}[]) AS {alias}"


def _of_table(table: Table, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((column.name, _type(column)) for column in columns_of(table, names))


def _type(column: Column[object]) -> str:
    return next((name for kind, name in _TYPES if isinstance(column.type, kind)), "text")


NEW_RUN = RowType(
    "core_workflow_new_run_row_3",
    (*_of_table(runs, NEW_RUN_COLUMNS), ("ttl", "double precision"), ("started", "text")),
)
"""A new run, with the duration of its lease in seconds and the metadata of its `workflow_started` event."""

CHANGE = RowType(
    "core_workflow_change_row_3",
    (
        *(("id", "bigint"), ("epoch", "integer"), ("expected_seq", "integer"), ("next_seq", "integer")),
        *(("commit_id", "text"), ("makes_progress", "boolean"), ("status", "text"), ("at", "timestamptz")),
        ("completed_at", "timestamptz"),
        *(("error_step", "text"), ("error", "text"), ("error_category", "text"), ("stop_reason", "text")),
    ),
)
"""The update of the row of a run by a commit."""

STEP = RowType("core_workflow_step_row_3", _of_table(steps, VISIT_COLUMNS))
EVENT = RowType("core_workflow_event_row_3", _of_table(event_log, EVENT_COLUMNS))


def _recreate(rows: RowType) -> tuple[str, str]:
    columns = ", ".join(f'"{name}" {kind}' for name, kind in rows.columns)
    return f"DROP TYPE IF EXISTS {rows.name}", f"CREATE TYPE {rows.name} AS ({columns})"


_CHILDREN = (steps.name, event_log.name, inbox.name)
_DELETE_CHILDREN = {
    "DELETE": "DELETE FROM %I.{table} s USING gone WHERE s.run = gone.id",
    "TRUNCATE": "DELETE FROM %I.{table}",  # TRUNCATE would fail if the same statement truncates this table
}
_BRANCHES = {
    event: " ".join(f"EXECUTE format('{text.format(table=table)}', TG_TABLE_SCHEMA);" for table in _CHILDREN)
    for event, text in _DELETE_CHILDREN.items()
}
# Runs with its owner's rights, as a cascading foreign key does. So no other user may attach it to a table.
_FUNCTION = (
    "CREATE OR REPLACE FUNCTION core_workflow_forget_runs() RETURNS trigger LANGUAGE plpgsql "
    "SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS "
    f"$$ BEGIN IF TG_OP = 'DELETE' THEN {_BRANCHES['DELETE']} ELSE {_BRANCHES['TRUNCATE']} END IF; "
    "RETURN NULL; END $$"
)
_REVOKE = "REVOKE ALL ON FUNCTION core_workflow_forget_runs() FROM PUBLIC"
_TRIGGERS = tuple(
    f"CREATE TRIGGER core_workflow_{name} AFTER {event} FOR EACH STATEMENT EXECUTE FUNCTION core_workflow_forget_runs()"
    for name, event in (
        ("deleted_runs", f"DELETE ON {runs.name} REFERENCING OLD TABLE AS gone"),
        ("truncated_runs", f"TRUNCATE ON {runs.name}"),
    )
)

CREATE_TYPES = tuple(statement for each in (NEW_RUN, CHANGE, STEP, EVENT) for statement in _recreate(each))
REPLACE_FUNCTION = (_FUNCTION, _REVOKE)
CREATE_TYPES_AND_TRIGGERS = (*CREATE_TYPES, *REPLACE_FUNCTION, *_TRIGGERS)
"""The statements that create the types and triggers after the tables exist."""

FROM_VERSION_1 = (
    # In the order in which commits lock them, because processes of version 1 may still commit.
    "LOCK TABLE core_workflow_runs, core_workflow_steps, core_workflow_event_log",
    "ALTER TABLE core_workflow_steps DROP CONSTRAINT IF EXISTS core_workflow_steps_run_fkey",
    "ALTER TABLE core_workflow_event_log DROP CONSTRAINT IF EXISTS core_workflow_event_log_run_fkey",
    *CREATE_TYPES_AND_TRIGGERS,
)
"""The statements that replace the foreign keys of version 1 by triggers and create the types."""
