"""Whether a run's lease holds, by the database's own clock.

PostgreSQL has one clock for all its users. SQLite has none that may not be set back, so there a lease is counted by the
host's boot clock, whose reading goes along with each query (`boot_clock.py`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnElement, Float, Text, and_, bindparam, false, func
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from spine_async.storage.sql.schema import runs


class _LeaseHolds(ColumnElement[bool]):
    """Whether the lease has not ended yet; NULL where there is none."""

    inherit_cache = True
    type = Boolean()


_BY_BOOT_CLOCK = and_(
    runs.c.lease_boot == bindparam("boot", type_=Text()), runs.c.lease_until > bindparam("seconds", type_=Float())
).self_group()
_BY_SERVER_CLOCK = (runs.c.lease_until > func.clock_timestamp()).self_group()


@compiles(_LeaseHolds, "sqlite")
def _on_sqlite(element: _LeaseHolds, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(_BY_BOOT_CLOCK, **options)


@compiles(_LeaseHolds, "postgresql")
def _on_postgres(element: _LeaseHolds, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(_BY_SERVER_CLOCK, **options)


IS_LEASED: ColumnElement[bool] = func.coalesce(and_(runs.c.owner.is_not(None), _LeaseHolds()), false()).label(
    "is_leased"
)
"""Whether the run has an owner whose lease holds."""
