"""The delay before a retry."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_async import RetryPolicy
from spine_async._engine.step.backoff import next_delay
from spine_async._model.policy import BACKOFFS, Backoff


def no_random() -> float:
    pytest.fail("a delay without jitter uses no random number")


@pytest.mark.parametrize(
    ("backoff", "initial", "maximum", "delays"),
    [
        ("constant", 2.0, 60.0, {1: 2.0, 2: 2.0, 100: 2.0}),
        ("constant", 90.0, 60.0, {1: 60.0, 2: 60.0}),
        ("linear", 2.0, 7.0, {1: 2.0, 2: 4.0, 3: 6.0, 4: 7.0, 1000: 7.0}),
        ("exponential", 1.0, 60.0, {1: 1.0, 2: 2.0, 3: 4.0, 4: 8.0, 6: 32.0, 7: 60.0, 64: 60.0, 65: 60.0}),
        ("exponential", 0.5, 10.0**30, {1: 0.5, 2: 1.0, 11: 512.0, 64: 2.0**62, 65: 10.0**30}),
        ("exponential", 1.0, 60.0, {1023: 60.0, 1024: 60.0, 1025: 60.0, 10**9: 60.0}),
        ("linear", 1.0, 0.0, {1: 0.0, 5: 0.0}),
        ("exponential", 0.0, 60.0, {1: 0.0, 2: 0.0, 64: 0.0}),
    ],
)
def test_delays_by_retry(backoff: Backoff, initial: float, maximum: float, delays: dict[int, float]) -> None:
    policy = RetryPolicy(backoff=backoff, initial_delay=initial, max_delay=maximum, jitter=False)
    assert {retry: next_delay(policy, retry, no_random) for retry in delays} == delays


@pytest.mark.parametrize(("drawn", "delay"), [(0.0, 0.0), (0.25, 1.5), (1.0, 6.0)])
def test_jitter_takes_a_share_of_the_capped_delay(drawn: float, delay: float) -> None:
    policy = RetryPolicy(backoff="linear", initial_delay=4.0, max_delay=6.0, jitter=True)
    assert next_delay(policy, 2, lambda: drawn) == delay


def test_delays_are_floats_for_whole_numbers_too() -> None:
    policy = RetryPolicy(backoff="linear", initial_delay=1, max_delay=10, jitter=False)
    assert isinstance(next_delay(policy, 1, no_random), float)


seconds = st.one_of(st.integers(0, 10**6), st.floats(0, 1e300, allow_nan=False))


@given(
    backoff=st.sampled_from(BACKOFFS),
    initial=seconds,
    maximum=seconds,
    jitter=st.booleans(),
    retry=st.integers(1, 10**6),
    drawn=st.floats(0, 1),
)
def test_a_delay_is_never_negative_and_never_above_the_maximum(
    *, backoff: Backoff, initial: float, maximum: float, jitter: bool, retry: int, drawn: float
) -> None:
    policy = RetryPolicy(backoff=backoff, initial_delay=initial, max_delay=maximum, jitter=jitter)
    delay = next_delay(policy, retry, lambda: drawn)
    assert math.isfinite(delay)
    assert 0 <= delay <= maximum
