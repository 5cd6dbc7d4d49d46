from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from spine_async._model.policy import RetryPolicy
from spine_async._model.time_option import to_seconds
from spine_async.errors import DefinitionError, InvalidPolicyError, StepError


def test_the_defaults_are_those_of_the_contract() -> None:
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.backoff, policy.initial_delay, policy.max_delay) == (
        3,
        "exponential",
        1.0,
        60.0,
    )
    assert policy.jitter is True
    assert policy.retryable_errors == ("TRANSIENT", "TIMEOUT")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_attempts": 0}, "max_attempts is 0; it must be an integer of at least 1"),
        ({"max_attempts": -1}, "max_attempts is -1"),
        ({"max_attempts": 2.0}, "max_attempts is 2.0"),
        ({"max_attempts": True}, "max_attempts is True"),
        ({"backoff": "fibonacci"}, "backoff is 'fibonacci'; it must be one of exponential, linear, constant"),
        ({"initial_delay": -0.1}, "initial_delay: -0.1 is not a number of seconds of at least 0"),
        ({"initial_delay": math.nan}, "initial_delay: nan is not a number of seconds"),
        ({"max_delay": math.inf}, "max_delay: inf is not a number of seconds"),
        ({"max_delay": "60"}, "max_delay: '60' is not a number of seconds"),
        (
            {"retryable_errors": [7]},
            "retryable_errors contains 7; it must contain categories, exception types or a predicate",
        ),
        ({"retryable_errors": [int]}, "retryable_errors contains <class 'int'>"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidPolicyError) as caught:
        RetryPolicy(**arguments)
    assert message in str(caught.value)
    assert isinstance(caught.value, DefinitionError)


@pytest.mark.parametrize(
    ("rules", "category", "error", "is_retried"),
    [
        (("TRANSIENT",), "TRANSIENT", OSError(), True),
        (("TRANSIENT",), "INTERNAL", OSError(), False),
        ("TIMEOUT", "TIMEOUT", TimeoutError(), True),
        (OSError, "INTERNAL", ConnectionError(), True),
        ((OSError, KeyError), "INTERNAL", ValueError(), False),
        (lambda error: "busy" in str(error), "INTERNAL", StepError("busy now"), True),
        ((lambda error: False, "INTERNAL"), "INTERNAL", ValueError(), True),
        ((), "TRANSIENT", OSError(), False),
    ],
)
def test_a_failure_is_retried_by_category_type_or_predicate(
    rules: Any, category: str, error: BaseException, is_retried: bool
) -> None:
    assert RetryPolicy(retryable_errors=rules).retries(category, error) is is_retried


@pytest.mark.parametrize(("given", "seconds"), [(0, 0.0), (1.5, 1.5), (timedelta(minutes=2), 120.0)])
def test_durations_are_seconds(given: float | timedelta, seconds: float) -> None:
    assert to_seconds(given) == seconds


@pytest.mark.parametrize("given", [-1, True, None, "1", math.nan, math.inf, timedelta(seconds=-1)])
def test_what_is_no_duration_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="is not a number of seconds of at least 0"):
        to_seconds(given)
