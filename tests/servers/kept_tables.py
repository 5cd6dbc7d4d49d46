"""Removes the rows of a PostgreSQL database between two tests, and keeps the library's tables.

To drop and create the tables takes more time than most tests. So they are kept if the catalog is exactly that of a
database in which the library has just created its tables, including privileges, settings and statistics of the planner.
Otherwise everything is dropped, and they are created by the library's own statements.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from sqlalchemy.dialects import postgresql

from spine_async.storage.sql.schema.migrations import statements_from
from spine_async.storage.sql.schema.tables import VERSION, metadata, schema_version
from tests.servers.postgres import OTHER_CLIENTS, drop_everything

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

_SMALL = 128 * 1024
"""Bytes up to which deleting the rows of a table is cheaper than truncating it."""

_OWN = 16384
"""PostgreSQL's own objects have lower numbers."""

_KEYS = {
    "pg_class": "oid",
    "pg_attribute": "attrelid",
    "pg_attrdef": "oid",
    "pg_index": "indexrelid",
    "pg_constraint": "oid",
    "pg_trigger": "oid",
    "pg_proc": "oid",
    "pg_type": "oid",
    "pg_rewrite": "oid",
    "pg_namespace": "oid",
    "pg_policy": "oid",
    "pg_statistic_ext": "oid",
    "pg_extension": "oid",
    "pg_event_trigger": "oid",
    "pg_publication": "oid",
    "pg_largeobject_metadata": "oid",
    "pg_default_acl": "oid",
}
_SETTINGS = (
    (
        "SELECT setrole, setconfig FROM pg_db_role_setting "
        "WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"
    ),
    "SELECT datacl FROM pg_database WHERE datname = current_database()",
    "SELECT nspname, nspowner, nspacl FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'",
)
_OF_TABLES = f"c.oid >= {_OWN} AND c.relkind <> 't' AND c.relnamespace <> 'pg_toast'::regnamespace"
_DEFINITIONS = (
    *_SETTINGS,
    (
        "SELECT c.oid::regclass, relkind, relpersistence, relowner, relacl, reloptions, relrowsecurity, "
        f"relispartition, relreplident, reltuples FROM pg_class c WHERE {_OF_TABLES}"
    ),
    (
        "SELECT attrelid::regclass, attnum, attname, atttypid::regtype, atttypmod, attnotnull, attidentity, "
        "attgenerated, attstorage, attcollation, attacl, attoptions, attisdropped "
        f"FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE {_OF_TABLES}"
    ),
    "SELECT adrelid::regclass, adnum, pg_get_expr(adbin, adrelid) FROM pg_attrdef",
    (
        "SELECT pg_get_indexdef(indexrelid), indisvalid, indisclustered "
        f"FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE {_OF_TABLES}"
    ),
    f"SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE oid >= {_OWN}",
    f"SELECT pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE oid >= {_OWN}",
    f"SELECT pg_get_functiondef(oid), proowner, proacl FROM pg_proc WHERE oid >= {_OWN}",
    f"SELECT oid::regtype, typowner, typacl FROM pg_type WHERE oid >= {_OWN}",
    f"SELECT ev_class::regclass, rulename, pg_get_ruledef(oid) FROM pg_rewrite WHERE oid >= {_OWN}",
    "SELECT polname FROM pg_policy",
    "SELECT stxname FROM pg_statistic_ext",
    "SELECT extname FROM pg_extension",
    "SELECT evtname FROM pg_event_trigger",
    "SELECT pubname FROM pg_publication",
    "SELECT oid FROM pg_largeobject_metadata",
    "SELECT defaclacl FROM pg_default_acl",
)
_VERSIONS = (
    *_SETTINGS,
    f"SELECT oid, reltuples FROM pg_class WHERE oid >= {_OWN}",  # ANALYZE changes it in place, beside its statistics
    *(f"SELECT {key}, xmin FROM {catalog} WHERE {key} >= {_OWN}" for catalog, key in _KEYS.items()),
)


def _digest(parts: tuple[str, ...]) -> str:
    texts = (f"(SELECT string_agg(r::text, ' ' ORDER BY r::text) FROM ({part}) r)" for part in parts)
    return f"SELECT md5(concat_ws('|', {', '.join(texts)}))"


_DEFINED, _STORED = _digest(_DEFINITIONS), _digest(_VERSIONS)


class KeptTables:
    """One database that tests use one after the other.

    Two digests describe the catalog. One consists of the definitions and is the same each time the library creates its
    tables. The other consists of the transactions that wrote the catalog's rows. It takes a third of the time and shows
    that nothing was defined since the definitions were compared.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._definitions = ""
        self._stored = ""

    def clear(self) -> None:
        """Leave nobody connected, no rows, and the tables as the library creates them."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f"SELECT pg_terminate_backend(pid) {OTHER_CLIENTS}")
            _drop_tables_of_test(connection)
            if self._are_unchanged(connection) and _versions(connection) == [(VERSION,)]:
                _delete_rows(connection)
                return
            drop_everything(connection)
            _create_tables(connection)
            if not self._definitions:
                self._definitions = _one(connection, _DEFINED)

    def _are_unchanged(self, connection: Connection) -> bool:
        if not self._definitions:
            return False
        stored = _one(connection, _STORED)
        if stored != self._stored and _one(connection, _DEFINED) == self._definitions:
            self._stored = stored
        return stored == self._stored


def _create_tables(connection: Connection) -> None:
    """Create them as the library does."""
    with connection.transaction():
        for statement in statements_from(0, postgresql.dialect()):  # type: ignore[no-untyped-call]
            connection.execute(statement)


def _drop_tables_of_test(connection: Connection) -> None:
    for (name,) in connection.execute(_OTHER_TABLES).fetchall():
        connection.execute(sql.SQL("DROP TABLE IF EXISTS public.{} CASCADE").format(sql.Identifier(name)))


def _versions(connection: Connection) -> list[tuple[int]]:
    return connection.execute(f"SELECT version FROM {schema_version.name}").fetchall()


def _delete_rows(connection: Connection) -> None:
    """Delete all rows except the schema's version, and number later rows from 1 again."""
    with connection.transaction():
        # A transaction that was ended may still be committing.
        connection.execute(f"LOCK TABLE {', '.join(table.name for table in _TABLES)} IN ACCESS EXCLUSIVE MODE")
        sizes = ", ".join(f"pg_relation_size('{table.name}')" for table in _TABLES)
        (row,) = connection.execute(f"SELECT {sizes}").fetchall()
        for table, size in zip(_TABLES, row, strict=True):
            if size:
                connection.execute(f"{'DELETE FROM' if size <= _SMALL else 'TRUNCATE'} {table.name}")
        connection.execute(f"SELECT {', '.join(_RESTARTS)}")


def _one(connection: Connection, query: str) -> str:
    ((value,),) = connection.execute(query).fetchall()
    return str(value)


_TABLES = tuple(table for table in reversed(metadata.sorted_tables) if table is not schema_version)
_RESTARTS = tuple(
    f"setval(pg_get_serial_sequence('{table.name}', '{column.name}'), 1, false)"
    for table in _TABLES
    for column in table.columns
    if column.identity is not None
)
_OTHER_TABLES = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = to_regnamespace('public') "
    f"AND relname NOT IN ({', '.join(repr(table.name) for table in metadata.sorted_tables)})"
)
