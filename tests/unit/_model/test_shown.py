"""Messages of errors quote values of users, whatever their `repr` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spine_async import (
    QualityMetrics,
    Queue,
    RateLimit,
    RetryPolicy,
    Schedule,
    SpineError,
    Step,
    Workflow,
    WorkflowRunner,
)
from spine_async._model.shown import shown


class Silent:
    """Its `repr` raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


HUGE = -(10**5_000)
"""CPython refuses to convert an integer of so many digits to text."""


def test_a_value_is_shown() -> None:
    assert shown("a\0b") == "'a\\x00b'"
    assert shown("x" * 1_000) == "'" + "x" * 79
    assert shown([1, 2, 3], 4) == "[1, "
    assert shown(Silent()) == "a value of type Silent"
    assert shown(HUGE) == "a value of type int"


def nothing(context: Any, config: Any) -> None: ...


FLOW = Workflow("flow", [Step.lambda_("a", nothing)])


@pytest.mark.parametrize("value", [Silent(), HUGE], ids=["silent", "huge"])
@pytest.mark.parametrize(
    "build",
    [
        lambda value: Step.wait("a", value),
        lambda value: Step.lambda_("a", nothing, timeout=value),
        lambda value: Step.lambda_("a", value),
        lambda value: Step.lambda_(value, nothing),
        lambda value: Step.lambda_("a", nothing, retry=value),
        lambda value: Step.lambda_("a", nothing, output_model=value),
        lambda value: Step.lambda_("a", nothing, catch={"*": value}),
        lambda value: Step.map("a", items=[1], iterator=nothing, max_concurrency=value),
        lambda value: Step.map("a", items=[1], iterator=nothing, tolerated_failures=value),
        lambda value: Step.map("a", items=[1], iterator=nothing, item_param=value),
        lambda value: Step.map("a", items_path=value, iterator=nothing),
        lambda value: Step.parallel("a", {"x": nothing}, need=value),
        lambda value: Step.wait_for_signal("a", model=value),
        lambda value: Step.wait_for_signal("a", timeout=1, on_timeout=value),
        lambda value: Workflow("w", [value]),
        lambda value: Workflow("w", FLOW.steps, version=value),
        lambda value: Workflow("w", FLOW.steps, params_model=value),
        lambda value: Queue("q", concurrency=value),
        lambda value: Queue("q", rate=value),
        lambda value: RateLimit(value, per=1),
        lambda value: RateLimit(1, per=value),
        lambda value: RetryPolicy(max_attempts=value),
        lambda value: RetryPolicy(initial_delay=value),
        lambda value: RetryPolicy(delays=value),
        lambda value: RetryPolicy(retryable_errors=value),
        lambda value: QualityMetrics(record_count=value),
        lambda value: Schedule("s", FLOW, every=value),
        lambda value: Schedule("s", value, every=1),
        lambda value: Schedule("s", FLOW, every=1).next(value),
        lambda value: WorkflowRunner(queues=[value]),
        lambda value: WorkflowRunner().handle(value),
    ],
)
def test_an_invalid_value_is_refused_although_it_cannot_be_shown(build: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(SpineError):
        build(value)
