"""Settings of hypothesis: how long an example takes says nothing, and the same examples run each time."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.chaos.size import IS_FULL

settings.register_profile("unit", deadline=None, derandomize=not IS_FULL, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
