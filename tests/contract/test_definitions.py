"""A definition is a value: frozen, and checked when it is built."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spine_async import DefinitionError, RetryPolicy, Step, Workflow

CHANGE_REFUSED = (AttributeError, TypeError, ValueError)


def noop(context: Any, config: Any) -> None:
    return None


def test_a_definition_error_is_a_value_error() -> None:
    assert issubclass(DefinitionError, ValueError)


def test_a_workflow_keeps_what_it_was_given() -> None:
    workflow = Workflow(
        "orders",
        [Step.lambda_("fetch", noop)],
        domain="sales",
        description="fetches orders",
        version=3,
        defaults={"limit": 10},
        tags=("daily",),
    )
    assert (workflow.name, workflow.domain, workflow.description, workflow.version) == (
        "orders",
        "sales",
        "fetches orders",
        3,
    )
    assert [step.name for step in workflow.steps] == ["fetch"]
    assert dict(workflow.defaults or {}) == {"limit": 10}
    assert list(workflow.tags) == ["daily"]


def test_the_defaults_of_a_workflow() -> None:
    workflow = Workflow(name="bare", steps=[Step.lambda_("only", noop)])
    assert (workflow.domain, workflow.description, workflow.version, workflow.params_model) == ("", "", 1, None)
    assert not workflow.defaults
    assert not workflow.tags


@pytest.mark.parametrize("field", ["name", "steps", "version"])
def test_a_workflow_is_frozen(field: str) -> None:
    workflow = Workflow("orders", [Step.lambda_("fetch", noop)])
    with pytest.raises(CHANGE_REFUSED):
        setattr(workflow, field, getattr(workflow, field))


def test_a_step_is_frozen() -> None:
    step = Step.lambda_("fetch", noop)
    with pytest.raises(CHANGE_REFUSED):
        step.name = "other"  # type: ignore[misc]


def test_a_workflow_does_not_follow_the_list_it_was_built_from() -> None:
    steps = [Step.lambda_("fetch", noop)]
    workflow = Workflow("orders", steps)
    steps.append(Step.lambda_("fetch", noop))
    assert [step.name for step in workflow.steps] == ["fetch"]


def test_a_retry_policy_is_frozen() -> None:
    policy = RetryPolicy()
    with pytest.raises(CHANGE_REFUSED):
        policy.max_attempts = 9  # type: ignore[misc]


def test_the_defaults_of_a_retry_policy() -> None:
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.backoff, policy.initial_delay, policy.max_delay, policy.jitter) == (
        3,
        "exponential",
        1.0,
        60.0,
        True,
    )
    assert list(policy.retryable_errors) == ["TRANSIENT", "TIMEOUT"]


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(
        DefinitionError, match=r"(?i)duplicate|twice|two steps|more than once|unique|same name"
    ) as refused:
        Workflow("orders", [Step.lambda_("fetch", noop), Step.lambda_("fetch", noop)])
    assert "orders" in str(refused.value)
    assert "fetch" in str(refused.value)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda: Step.choice("route", lambda ctx: True, "nowhere"), id="then"),
        pytest.param(lambda: Step.choice("route", lambda ctx: True, "last", "nowhere"), id="else"),
        pytest.param(lambda: Step.lambda_("route", noop, next_step="nowhere"), id="next_step"),
        pytest.param(lambda: Step.pipeline("route", "load", next_step="nowhere"), id="pipeline-next_step"),
        pytest.param(lambda: Step.map("route", items=[1], iterator=noop, next_step="nowhere"), id="map-next_step"),
    ],
)
def test_a_jump_to_no_step_is_refused(step: Callable[[], Step]) -> None:
    with pytest.raises(DefinitionError) as refused:
        Workflow("orders", [step(), Step.lambda_("last", noop)])
    for word in ("orders", "route", "nowhere"):
        assert word in str(refused.value)


def test_a_jump_out_of_an_iterator_is_refused() -> None:
    with pytest.raises(DefinitionError, match="outside"):
        Workflow(
            "orders",
            [
                Step.map("each", items=[1], iterator=Workflow(steps=[Step.lambda_("in", noop, next_step="outside")])),
                Step.lambda_("outside", noop),
            ],
        )


@pytest.mark.parametrize(
    ("option", "step"),
    [
        ("max_concurrency", lambda: Step.map("each", items=[1], iterator=noop, max_concurrency=-1)),
        ("tolerated_failures", lambda: Step.map("each", items=[1], iterator=noop, tolerated_failures=-1)),
        ("tolerated_failures", lambda: Step.map("each", items=[1], iterator=noop, tolerated_failures=-0.5)),
        ("timeout", lambda: Step.map("each", items=[1], iterator=noop, timeout=-1)),
        ("timeout", lambda: Step.lambda_("each", noop, timeout=-0.5)),
        ("timeout", lambda: Step.lambda_("each", noop, timeout=timedelta(seconds=-1))),
        ("timeout", lambda: Step.pipeline("each", "load", timeout=-1)),
        ("seconds", lambda: Step.wait("each", -1)),
    ],
)
def test_a_negative_limit_is_refused(option: str, step: Callable[[], Step]) -> None:
    with pytest.raises(DefinitionError, match=option) as refused:
        Workflow("orders", [step()])
    assert "each" in str(refused.value)


@pytest.mark.parametrize("field", ["max_attempts", "initial_delay", "max_delay"])
def test_a_negative_limit_of_a_retry_policy_is_refused(field: str) -> None:
    settings: dict[str, Any] = {field: -1}
    with pytest.raises(ValueError, match=field):
        Workflow("orders", [Step.lambda_("fetch", noop, retry=RetryPolicy(**settings))])


def test_an_unknown_backoff_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fibonacci|exponential"):
        RetryPolicy(backoff="fibonacci")  # type: ignore[arg-type]


def test_a_wait_without_a_moment_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"seconds.*until") as refused:
        Workflow("orders", [Step.wait("pause")])
    assert "pause" in str(refused.value)


def test_a_wait_with_two_moments_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"seconds.*until") as refused:
        Workflow("orders", [Step.wait("pause", 1, until=datetime(2026, 1, 1, tzinfo=UTC))])
    assert "pause" in str(refused.value)


def test_a_map_without_items_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"items.*items_path") as refused:
        Workflow("orders", [Step.map("each", iterator=noop)])
    assert "each" in str(refused.value)


def test_a_map_with_two_sources_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"items.*items_path") as refused:
        Workflow("orders", [Step.map("each", items=[1], items_path="orders", iterator=noop)])
    assert "each" in str(refused.value)


def test_an_iterator_may_be_unnamed_and_is_checked_too() -> None:
    Workflow("orders", [Step.map("each", items=[1], iterator=Workflow(steps=[Step.lambda_("inner", noop)]))])
    with pytest.raises(DefinitionError, match="inner"):
        Workflow(steps=[Step.lambda_("inner", noop), Step.lambda_("inner", noop)])
