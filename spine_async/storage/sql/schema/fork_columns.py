"""The parts of the statements of a fork that are the same on both databases."""

from __future__ import annotations

from spine_async._model.fork import COPIED_MARK
from spine_async.storage.sql.schema.rows import EVENT_COLUMNS, VISIT_COLUMNS

# As `_model.fork.copied_path`.
_COPIED = {"run": "{run}", "path": f"CASE WHEN s.path LIKE '@%' THEN '{COPIED_MARK}' || s.path ELSE s.path END"}


def copy_statement(table: str, columns: tuple[str, ...], new: str, source: str, until: str) -> str:
    """The statement that copies the rows of a run.

    Args:
        table: Name of the table.
        columns: Its columns.
        new: Parameter of the key of the new run.
        source: Parameter of the key of the run whose rows are copied.
        until: Parameter of the number up to which they are copied.
    """
    names = ", ".join(f'"{name}"' for name in columns)
    # The path of an event is that of a visit, which is never changed.
    copied = _COPIED if columns is VISIT_COLUMNS else {"run": "{run}"}
    values = ", ".join(copied.get(name, f's."{name}"') for name in columns).format(run=new)
    return f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} s WHERE s.run = {source} AND s.seq <= {until}"  # noqa: S608


def copy_statements(new: str, source: str, until: str) -> tuple[str, str]:
    """The statements that copy the visits and the events; for the arguments see `copy_statement`."""
    return (
        copy_statement("core_workflow_steps", VISIT_COLUMNS, new, source, until),
        copy_statement("core_workflow_event_log", EVENT_COLUMNS, new, source, until),
    )
