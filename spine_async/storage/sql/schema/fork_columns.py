"""The parts of the statements of a fork that are the same on both databases."""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from collections.abc import Mapping

from spine_async._model.fork import COPIED_MARK
from spine_async.storage.sql.schema.rows import EVENT_COLUMNS, VISIT_COLUMNS

# As `_model.fork.copied_path`.
_COPIED_PATH = f"CASE WHEN s.path LIKE '@%' THEN '{COPIED_MARK}' || s.path ELSE s.path END"


def copy_visits(new: str, source: str, until: str, edits: str | None = None) -> str:
    """The statement that copies the visits of a run.

    Args:
        new: Parameter of the key of the new run.
        source: Parameter of the key of the run whose rows are copied.
        until: Parameter of the number up to which they are copied.
        edits: FROM item `e` with the columns `path`, `output` and `size` of outputs that replace copied ones, or None.
    """
    values, join = {"run": new, "path": _COPIED_PATH}, ""
    if edits is not None:
        values |= {"output": "COALESCE(e.output, s.output)", "output_size": "COALESCE(e.size, s.output_size)"}
        join = f" LEFT JOIN {edits} ON e.path = s.path"
    return _copy("core_workflow_steps", VISIT_COLUMNS, values, join, f"s.run = {source} AND s.seq <= {until}")


def copy_events(new: str, source: str, until: str) -> str:
    """The statement that copies the events of a run; for the arguments see `copy_visits`."""
    return _copy("core_workflow_event_log", EVENT_COLUMNS, {"run": new}, "", f"s.run = {source} AND s.seq <= {until}")


def _copy(table: str, columns: tuple[str, ...], values: Mapping[str, str], join: str, where: str) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    copied = ", ".join(values.get(name, f's."{name}"') for name in columns)
    return f"INSERT INTO {table} ({names}) SELECT {copied} FROM {table} s{join} WHERE {where}"
