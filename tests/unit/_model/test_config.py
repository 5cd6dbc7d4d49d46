from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.policy import RetryPolicy


def test_the_defaults_are_those_of_the_contract() -> None:
    shown = dict(WorkflowRunnerConfig())
    assert shown.pop("auto_migrate") is True
    assert shown.pop("worker_threads") == 40
    assert shown.pop("durability") == "full"
    assert shown.pop("store_timeout") is None
    assert (shown.pop("worker_concurrency"), shown.pop("park_after"), shown.pop("poll_interval")) == (100, 5, 0.5)
    assert (shown.pop("retention"), shown.pop("retention_interval")) == (None, 300)
    for name in ("lease_ttl", "drain_timeout", "cancel_grace"):
        assert shown.pop(name) > 0
    assert shown.pop("max_value_bytes") == 64 * 1024 * 1024
    assert shown.pop("max_pending_events") == 10_000
    for name in ("max_claims", "max_abandoned_threads"):
        assert shown.pop(name) >= 1
    assert shown == {
        "checkpoint_enabled": True,
        "checkpoint_every_step": True,
        "checkpoint_storage": "database",
        "database_url": None,
        "checkpoint_dir": ".spine/runs",
        "redis_url": None,
        "default_step_timeout": 300,
        "workflow_timeout": None,
        "default_retry_policy": RetryPolicy(max_attempts=3),
        "emit_events": True,
        "trace_enabled": True,
        "max_concurrent_steps": None,
        "max_step_visits": 10_000,
        "dry_run": False,
    }


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"checkpoint_everystep": True}, "checkpoint_everystep"),
        ({"checkpoint_storage": "mongodb"}, "checkpoint_storage"),
        ({"default_step_timeout": 0}, "default_step_timeout"),
        ({"workflow_timeout": -1}, "workflow_timeout"),
        ({"workflow_timeout": math.inf}, "workflow_timeout"),
        ({"max_concurrent_steps": 0}, "max_concurrent_steps"),
        ({"max_step_visits": 0}, "max_step_visits"),
        ({"default_retry_policy": 3}, "default_retry_policy"),
        ({"worker_threads": 0}, "worker_threads"),
        ({"worker_concurrency": 0}, "worker_concurrency"),
        ({"park_after": -1}, "park_after"),
        ({"poll_interval": 0}, "poll_interval"),
        ({"retention": 7}, "retention"),
        ({"retention_interval": 0}, "retention_interval"),
        ({"recover_interval": 1}, "recover_interval"),
        ({"durability": "none"}, r"durability\n  Input should be 'full' or 'process'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        WorkflowRunnerConfig(**fields)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        WorkflowRunnerConfig().dry_run = True  # type: ignore[misc]


def test_urls_with_passwords_are_not_shown() -> None:
    config = WorkflowRunnerConfig(database_url="postgresql+asyncpg://me:secret@db/x", redis_url="redis://:secret@r")
    assert "secret" not in repr(config)
