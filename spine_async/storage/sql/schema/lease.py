"""SQL expressions for whether a run's lease is valid.

PostgreSQL uses the clock of the server. SQLite has no clock that cannot be set back, so a lease there uses the boot
clock of the host, and its reading is a parameter of the query (`driver/boot_clock.py`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnElement, and_, false, func, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from spine_async.storage.sql.schema.tables import runs


class _LeaseValid(ColumnElement[bool]):
    """Whether the lease has not ended; NULL if there is none."""

    inherit_cache = True
    type = Boolean()


_LEASE_VALID = {
    "sqlite": "(lease_boot = :boot AND leased_until > :seconds)",
    "postgresql": "(leased_until > clock_timestamp())",
}


@compiles(_LeaseValid)
def _compiled(element: _LeaseValid, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(text(_LEASE_VALID[compiler.dialect.name]), **options)


IS_LEASED: ColumnElement[bool] = func.coalesce(and_(runs.c.owner.is_not(None), _LeaseValid()), false()).label(
    "is_leased"
)
"""Whether the run has an owner with a valid lease."""

IS_LEASED_SQL = {
    dialect: f"COALESCE(owner IS NOT NULL AND {is_valid}, false)" for dialect, is_valid in _LEASE_VALID.items()
}
"""The same expression as SQL text, by dialect name."""
