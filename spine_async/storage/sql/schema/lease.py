"""SQL expressions for whether a run's lease is valid.

PostgreSQL uses the clock of the server. SQLite has no clock that cannot be set back, so a lease there uses the boot
clock of the host, and its reading is a parameter of the query (`storage/boot_clock.py`).
"""

from __future__ import annotations

_LEASE_VALID = {
    "sqlite": "(lease_boot = :boot AND leased_until > :seconds)",
    "postgresql": "(leased_until > clock_timestamp())",
}

IS_LEASED_SQL = {
    dialect: f"COALESCE(owner IS NOT NULL AND {is_valid}, false)" for dialect, is_valid in _LEASE_VALID.items()
}
"""Whether the run has an owner with a valid lease, by dialect name."""
