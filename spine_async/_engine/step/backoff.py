"""The delay before a retry."""

from __future__ import annotations

from collections.abc import Callable

from spine_async._model.policy import RetryPolicy


def next_delay(policy: RetryPolicy, retry: int, random: Callable[[], float]) -> float:
    """Seconds before retry number `retry`.

    Args:
        policy: The step's policy.
        retry: 1 for the first retry.
        random: Returns a number from 0 to 1; used only with jitter.

    Source: `docs/concepts.md`, "Failures, retries, timeouts".
    """
    listed = policy.delay_before(retry)
    if listed is not None:
        return listed
    delay = min(_computed(policy, retry), float(policy.max_delay))
    return delay * random() if policy.jitter else delay


def _computed(policy: RetryPolicy, retry: int) -> float:
    if policy.backoff == "constant":
        return float(policy.initial_delay)
    if policy.backoff == "linear":
        return float(policy.initial_delay * retry)
    if retry > 64:  # 2.0 ** 1024 would overflow, and any maximum is exceeded long before
        return float(policy.max_delay)
    return float(policy.initial_delay * 2.0 ** (retry - 1))
