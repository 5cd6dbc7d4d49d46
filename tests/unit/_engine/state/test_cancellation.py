"""The reason for which a run is cancelled."""

from __future__ import annotations

import math

import pytest

from spine_async._engine.state.cancellation import CancelReason, RunCancellation


class Scope:
    """The two members of a cancel scope that a cancellation uses."""

    def __init__(self, deadline: float = math.inf) -> None:
        self.deadline = deadline
        self.cancellations = 0

    def cancel(self) -> None:
        self.cancellations += 1


def attached(scope: Scope) -> RunCancellation:
    cancellation = RunCancellation()
    cancellation.attach(scope)  # type: ignore[arg-type]  # a real scope needs an event loop
    return cancellation


def test_a_request_cancels_the_scope_and_keeps_reason_text_and_time() -> None:
    scope = Scope()
    cancellation = attached(scope)
    assert (cancellation.reason, scope.cancellations) == (None, 0)
    cancellation.request(CancelReason.USER, 4.0, "no longer needed")
    assert (cancellation.reason, cancellation.text, cancellation.requested_mono) == ("user", "no longer needed", 4.0)
    assert scope.cancellations == 1


@pytest.mark.parametrize("text", [None, ""])
def test_the_text_is_the_reason_if_none_is_given(text: str | None) -> None:
    cancellation = RunCancellation()
    cancellation.request(CancelReason.SHUTDOWN, 1.0, text)
    assert cancellation.text == "shutdown"


def test_only_the_first_request_counts() -> None:
    scope = Scope()
    cancellation = attached(scope)
    cancellation.request(CancelReason.LEASE_LOST, 1.0)
    cancellation.request(CancelReason.USER, 2.0, "later")
    assert (cancellation.reason, cancellation.text, cancellation.requested_mono) == ("lease_lost", "lease_lost", 1.0)
    assert scope.cancellations == 1


def test_a_request_before_the_steps_begin_cancels_their_scope_when_it_is_attached() -> None:
    cancellation = RunCancellation()
    cancellation.request(CancelReason.CANCELLED, 1.0)
    scope = Scope()
    cancellation.attach(scope)  # type: ignore[arg-type]
    assert scope.cancellations == 1


@pytest.mark.parametrize(
    ("deadline", "reason"), [(math.inf, None), (5.1, None), (5.0, "run_timeout"), (4.9, "run_timeout")]
)
def test_the_deadline_of_the_run_is_the_reason_once_it_has_passed(deadline: float, reason: str | None) -> None:
    assert attached(Scope(deadline)).reason_at(5.0) == reason


def test_a_request_takes_precedence_over_the_deadline() -> None:
    cancellation = attached(Scope(deadline=1.0))
    cancellation.request(CancelReason.USER, 0.5)
    assert cancellation.reason_at(5.0) == "user"


def test_a_run_without_a_scope_is_not_cancelled() -> None:
    assert RunCancellation().reason_at(1e9) is None
