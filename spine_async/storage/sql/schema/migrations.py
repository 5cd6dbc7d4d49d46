"""Schema creation and migration.

A database without the tables gets those of `tables.py`. For each later schema version, `MIGRATIONS` has the statements
that migrate from the previous version to it. Views hold no data, so every migration creates them again.

A rolling deploy upgrades the schema while processes with the earlier library are running. If these processes may
continue, the migration adds the column `compatible_from` to `core_workflow_schema`. The column contains the oldest
schema version whose library may use the new schema. Without the column, processes with the earlier library are refused
when they next open the database, and as soon as one of their statements fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import ColumnElement, Dialect, Insert, Integer, Update, insert, literal_column, update
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement

from spine_async.errors import SchemaVersionError, StoreUnavailableError
from spine_async.storage.sql.schema import checkpoints_view, events_view, version_3
from spine_async.storage.sql.schema.postgres_types import CREATE_TYPES_AND_TRIGGERS, FROM_VERSION_1
from spine_async.storage.sql.schema.tables import VERSION, metadata, schema_version

MIGRATIONS: Mapping[int, Mapping[str, Sequence[str]]] = {
    2: {"postgresql": FROM_VERSION_1, "sqlite": ()},
    3: version_3.MIGRATION,
}
"""Statements by target version and dialect name. Version 1 is the first schema, so no migration leads to it."""

_UPGRADE_HINT = "call `await spine_async.storage.upgrade_schema(engine_or_url)` once, or allow auto_migrate"


def usable_version(columns: Mapping[str, object]) -> int:
    """The version in the row of `core_workflow_schema`, or that of this library if a newer schema permits its use."""
    found, oldest = int(str(columns.get("version") or 0)), columns.get("compatible_from")
    return VERSION if oldest is not None and int(str(oldest)) <= VERSION < found else found


async def raise_if_upgraded(version: Callable[[], Awaitable[int]]) -> None:
    """Raise `SchemaVersionError` if another process has upgraded the schema; called after a statement failed."""
    with suppress(StoreUnavailableError):
        is_current(await version(), auto_migrate=True)


def is_current(found: int, *, auto_migrate: bool) -> bool:
    """Whether a database with this schema version (0: no tables) needs no migration.

    Raises:
        SchemaVersionError: The version is newer than this library, or older and `auto_migrate` is False.
    """
    if found > VERSION:
        raise SchemaVersionError(found, VERSION, "upgrade spine-async to a version that knows this schema")
    if found < VERSION and not auto_migrate:
        raise SchemaVersionError(found, VERSION, _UPGRADE_HINT)
    return found == VERSION


def statements_from(found: int, dialect: Dialect) -> list[str]:
    """The statements that migrate this schema version (0: no tables) to the current one, in order."""
    stamp: Insert | Update
    if found == 0:
        changes, stamp = _creation(dialect), insert(schema_version).values(version=_VERSION)
    else:
        changes, stamp = _migration(found, dialect), update(schema_version).values(version=_VERSION)
    return [*changes, *_views(dialect), str(stamp.compile(dialect=dialect))]


def _creation(dialect: Dialect) -> list[str]:
    tables = metadata.sorted_tables
    indexes = (index for table in tables for index in table.indexes)
    additions = CREATE_TYPES_AND_TRIGGERS if dialect.name == "postgresql" else ()
    return [
        *(_statement(CreateTable(each), each.info, dialect) for each in tables),
        *(
            _statement(CreateIndex(each), each.info, dialect)
            for each in indexes
            if each.info.get("dialect", dialect.name) == dialect.name
        ),
        *additions,
    ]


def _statement(element: DDLElement, info: Mapping[str, Any], dialect: Dialect) -> str:
    statement = str(element.compile(dialect=dialect))
    ending = info.get("endings", {}).get(dialect.name)
    return statement if ending is None else f"{statement.rstrip()} {ending}"


def _migration(found: int, dialect: Dialect) -> list[str]:
    return [each for version in range(found + 1, VERSION + 1) for each in MIGRATIONS[version][dialect.name]]


def _views(dialect: Dialect) -> list[str]:
    is_sqlite = dialect.name == "sqlite"
    events = events_view.SQLITE if is_sqlite else events_view.POSTGRES
    checkpoints = checkpoints_view.SQLITE if is_sqlite else checkpoints_view.POSTGRES
    queries = {
        events_view.EVENTS_VIEW: events_view.events_query(events),
        checkpoints_view.CHECKPOINTS_VIEW: checkpoints_view.checkpoints_query(checkpoints),
    }
    if is_sqlite:
        return [
            statement
            for name, query in queries.items()
            for statement in (f"DROP VIEW IF EXISTS {name}", f"CREATE VIEW {name} AS {query}")
        ]
    # Replaced in place, which keeps the privileges that were granted on the views and the objects that depend on them.
    return [f"CREATE OR REPLACE VIEW {name} AS {query}" for name, query in queries.items()]


_VERSION: ColumnElement[int] = literal_column(str(VERSION), Integer())
