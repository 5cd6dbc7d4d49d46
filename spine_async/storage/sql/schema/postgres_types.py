"""What PostgreSQL has besides the tables: row types by which commits send values, and the cascade of a deletion.

A group of rows travels as one array of a row type. One array for each column costs twice as much, because the driver
looks at each value to see whether it is an array again. A foreign key would be checked for each step that is inserted,
though the fence in the same statement has just locked the run's row; so triggers do what is left for it to do.

A later schema makes types of other names, since processes of this one go on with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, Table
from sqlalchemy.dialects.postgresql import TIMESTAMP

from spine_async.storage.sql.schema.rows import EVENT_COLUMNS, NEW_RUN_COLUMNS, VISIT_COLUMNS, columns_of
from spine_async.storage.sql.schema.tables import event_log, runs, steps

_TYPES = (  # the first that fits: a BigInteger is an Integer too
    (BigInteger, "bigint"),
    (Integer, "integer"),
    (Boolean, "boolean"),
    (Float, "double precision"),
    (TIMESTAMP, "timestamptz"),
)


@dataclass(frozen=True, slots=True)
class RowType:
    """The values of a row.

    Attributes:
        columns: Their names and types, in order.
    """

    name: str
    columns: Sequence[tuple[str, str]]

    @property
    def names(self) -> str:
        return self.listed("")

    def listed(self, prefix: str) -> str:
        """The names, each with the prefix."""
        return ", ".join(f'{prefix}"{name}"' for name, _ in self.columns)

    def arguments(self, first: int) -> list[str]:
        """An argument for each value, numbered from `first`."""
        return [f"${number}::{kind}" for number, (_, kind) in enumerate(self.columns, first)]

    def unnest(self, number: int, alias: str) -> str:
        """The rows of the argument with this number, which is an array of this type."""
        return f"unnest(${number}::{self.name}[]) AS {alias}"


def _of_table(table: Table, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((column.name, _type(column)) for column in columns_of(table, names))


def _type(column: Column[object]) -> str:
    return next((name for kind, name in _TYPES if isinstance(column.type, kind)), "text")


NEW_RUN = RowType(
    "core_workflow_new_run_row",
    (*_of_table(runs, NEW_RUN_COLUMNS), ("ttl", "double precision"), ("started", "text")),
)
"""A run to be created, with the seconds of its lease and the metadata of its first event."""

CHANGE = RowType(
    "core_workflow_change_row",
    (
        *(("id", "bigint"), ("epoch", "integer"), ("expected_seq", "integer"), ("next_seq", "integer")),
        *(("commit_id", "text"), ("makes_progress", "boolean"), ("status", "text"), ("at", "timestamptz")),
        ("completed_at", "timestamptz"),
        *(("error_step", "text"), ("error", "text"), ("error_category", "text"), ("stop_reason", "text")),
    ),
)
"""What a commit does to the row of its run."""

STEP = RowType("core_workflow_step_row", _of_table(steps, VISIT_COLUMNS))
EVENT = RowType("core_workflow_event_row", _of_table(event_log, EVENT_COLUMNS))


def _made_anew(rows: RowType) -> tuple[str, str]:
    columns = ", ".join(f'"{name}" {kind}' for name, kind in rows.columns)
    return f"DROP TYPE IF EXISTS {rows.name}", f"CREATE TYPE {rows.name} AS ({columns})"


_CHILDREN = (steps.name, event_log.name)
_FORGETTING = {
    "DELETE": "DELETE FROM %I.{table} s USING gone WHERE s.run = gone.id",
    "TRUNCATE": "DELETE FROM %I.{table}",  # not truncated, which cannot be done to a table that is being truncated too
}
_BRANCHES = {
    event: " ".join(f"EXECUTE format('{text.format(table=table)}', TG_TABLE_SCHEMA);" for table in _CHILDREN)
    for event, text in _FORGETTING.items()
}
# With its owner's rights, as a foreign key cascades; so nobody else may hang it on a table of his own.
_FUNCTION = (
    "CREATE OR REPLACE FUNCTION core_workflow_forget_runs() RETURNS trigger LANGUAGE plpgsql "
    "SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS "
    f"$$ BEGIN IF TG_OP = 'DELETE' THEN {_BRANCHES['DELETE']} ELSE {_BRANCHES['TRUNCATE']} END IF; "
    "RETURN NULL; END $$"
)
_PRIVATE = "REVOKE ALL ON FUNCTION core_workflow_forget_runs() FROM PUBLIC"
_TRIGGERS = tuple(
    f"CREATE TRIGGER core_workflow_{name} AFTER {event} FOR EACH STATEMENT EXECUTE FUNCTION core_workflow_forget_runs()"
    for name, event in (
        ("deleted_runs", f"DELETE ON {runs.name} REFERENCING OLD TABLE AS gone"),
        ("truncated_runs", f"TRUNCATE ON {runs.name}"),
    )
)

ADDITIONS = (
    *(statement for each in (NEW_RUN, CHANGE, STEP, EVENT) for statement in _made_anew(each)),
    _FUNCTION,
    _PRIVATE,
    *_TRIGGERS,
)
"""The statements that make all this, once the tables are there."""

FROM_VERSION_1 = (
    # In the order in which commits take them, since processes of that version may be at work.
    f"LOCK TABLE {', '.join((runs.name, *_CHILDREN))}",
    *(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_run_fkey" for table in _CHILDREN),
    *ADDITIONS,
)
"""The statements that put the triggers in place of version 1's foreign keys, and make the types."""
