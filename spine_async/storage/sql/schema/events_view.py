"""The view `core_workflow_events`: stored events and the events derived from visits.

`storage/derived_events.py` derives the same events in Python; the two must agree. JSON is built as text, so that no
database changes a value.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventsDialect:
    """The SQL expressions in which the databases differ.

    Attributes:
        quote: Converts text to a JSON string. For NULL, PostgreSQL returns NULL and SQLite the text `null`.
        number: Converts a float to JSON text that parses to the same float.
        map_name: Name of the map in a scope: `b` for `a[1]/b#2[3]`.
    """

    quote: Callable[[str], str]
    number: Callable[[str], str]
    map_name: Callable[[str], str]


def _sqlite_number(column: str) -> str:
    # SQLite prints 15 digits; some floats need 17 to parse to the same value.
    return (
        f"CASE WHEN CAST(CAST({column} AS TEXT) AS REAL) = {column} THEN CAST({column} AS TEXT) "
        f"ELSE printf('%!.17g', {column}) END"
    )


def _sqlite_map_name(scope: str) -> str:
    # SQLite has no reverse search. Trimming all characters but slashes from the end leaves the part up to the last one.
    last = f"substr({scope}, length(rtrim({scope}, replace({scope}, '/', ''))) + 1)"
    item = f"substr({last}, 1, instr({last}, '[') - 1)"
    return f"substr({item}, 1, CASE instr({item}, '#') WHEN 0 THEN length({item}) ELSE instr({item}, '#') - 1 END)"


SQLITE = EventsDialect(
    quote=lambda text: f"json_quote({text})",
    number=_sqlite_number,
    map_name=_sqlite_map_name,
)
POSTGRES = EventsDialect(
    quote=lambda text: f"to_json({text})::text",
    number=lambda column: f"{column}::text",
    map_name=lambda scope: f"substring({scope} from '([^][/#]+)[^][/]*\\[[^][/]*\\]$')",
)

EVENTS_VIEW = "core_workflow_events"
# The subquery has only these two columns, so that the names of all others are unambiguous.
_OF_RUN = "JOIN (SELECT id, run_id FROM core_workflow_runs) r ON r.id = run"


def events_query(dialect: EventsDialect) -> str:
    """The SELECT of the view.

    Each branch joins the runs by itself. So a condition on the run applies within each branch, and SQLite reads no rows
    of other runs.
    """
    return " UNION ALL ".join(
        (_stored(), _started(), _completed(dialect), _skipped(dialect), _failed(dialect), _item(dialect))
    )


def _stored() -> str:
    return (
        'SELECT r.run_id, seq, event_type, step_name, path, "timestamp", metadata '
        f"FROM core_workflow_event_log {_OF_RUN}"
    )


def _started() -> str:
    has_event = "records_events AND status IN ('completed', 'skipped', 'failed') AND started_seq IS NOT NULL"
    return (
        "SELECT r.run_id, started_seq, 'step_started', step_name, path, started_at, '{}' "
        f"FROM core_workflow_steps {_OF_RUN} WHERE {has_event}"
    )


def _completed(dialect: EventsDialect) -> str:
    metadata = (
        f"'{{\"duration_ms\":' || {dialect.number('duration_ms')} || ',\"output_size\":' || output_size "
        "|| ',\"attempts\":' || attempts || '}'"
    )
    return _ended("completed", "step_completed", metadata)


def _skipped(dialect: EventsDialect) -> str:
    return _ended("skipped", "step_skipped", f"'{{\"reason\":' || {_or_null(dialect, 'error')} || '}}'")


def _failed(dialect: EventsDialect) -> str:
    metadata = (
        f"'{{\"duration_ms\":' || {dialect.number('duration_ms')} || ',\"attempts\":' || attempts "
        f"|| ',\"error_category\":' || {_or_null(dialect, 'error_category')} "
        f"|| ',\"error\":' || {_or_null(dialect, 'error')} "
        f"|| CASE WHEN target IS NULL THEN '' ELSE ',\"next_step\":' || {dialect.quote('target')} END || '}}'"
    )
    return _ended("failed", "step_failed", metadata)


def _ended(status: str, event_type: str, metadata: str) -> str:
    return (
        f"SELECT r.run_id, seq, '{event_type}', step_name, path, completed_at, {metadata} "
        f"FROM core_workflow_steps {_OF_RUN} WHERE records_events AND status = '{status}'"
    )


def _item(dialect: EventsDialect) -> str:
    metadata = (
        "'{\"index\":' || COALESCE(CAST(item_index AS TEXT), 'null') || ',\"output_size\":' || output_size || '}'"
    )
    has_event = "records_events AND status IN ('completed', 'skipped', 'failed') AND item_seq IS NOT NULL"
    return (
        f"SELECT r.run_id, item_seq, 'map_item_completed', {dialect.map_name('scope')}, scope, completed_at, "
        f"{metadata} FROM core_workflow_steps {_OF_RUN} WHERE {has_event}"
    )


def _or_null(dialect: EventsDialect, column: str) -> str:
    # SQLite's json_quote(NULL) is the text `null`; PostgreSQL's to_json(NULL) is NULL.
    return f"COALESCE({dialect.quote(column)}, 'null')"
