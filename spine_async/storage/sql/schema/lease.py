"""Whether a run's lease holds, by the database's own clock.

PostgreSQL has one clock for all its users. SQLite has none that may not be set back, so there a lease is counted by the
host's boot clock, whose reading goes along with each query (`boot_clock.py`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnElement, and_, false, func, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from spine_async.storage.sql.schema.tables import runs


class _LeaseHolds(ColumnElement[bool]):
    """Whether the lease has not ended yet; NULL where there is none."""

    inherit_cache = True
    type = Boolean()


_HOLDS = {
    "sqlite": "(lease_boot = :boot AND lease_until > :seconds)",
    "postgresql": "(lease_until > clock_timestamp())",
}


@compiles(_LeaseHolds)
def _compiled(element: _LeaseHolds, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(text(_HOLDS[compiler.dialect.name]), **options)


IS_LEASED: ColumnElement[bool] = func.coalesce(and_(runs.c.owner.is_not(None), _LeaseHolds()), false()).label(
    "is_leased"
)
"""Whether the run has an owner whose lease holds."""

LEASED_TEXTS = {dialect: f"COALESCE(owner IS NOT NULL AND {holds}, false)" for dialect, holds in _HOLDS.items()}
"""The same as text, by the name of the dialect."""
