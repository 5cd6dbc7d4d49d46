"""Cancellation of a run, with its reason.

Source of the reasons: `docs/operations.md`, "Cancellation".
"""

from __future__ import annotations

from enum import StrEnum

import anyio

from spine_async._model.stop_request import StopRequest


class CancelReason(StrEnum):
    """The values of `context.cancel_reason`, which a step reads while it is being cancelled."""

    USER = "user"
    STEP_TIMEOUT = "step_timeout"
    RUN_TIMEOUT = "run_timeout"
    SHUTDOWN = "shutdown"
    LEASE_LOST = "lease_lost"
    SIBLING_FAILED = "sibling_failed"
    SIBLING_DONE = "sibling_done"
    CANCELLED = "cancelled"
    PARKED = "parked"


class RunCancellation:
    """The cancellation of one run; the only way to end a run other than by its own steps.

    Attributes:
        reason: Why the run is cancelled, or None while it is not. The first request counts.
        text: The run's `stop_reason`, as it will be stored.
        requested_mono: When it was requested, or None.
        scope: Cancel scope around the run's steps while they execute; its deadline is that of the run.
        compensates: Whether the finished steps are compensated when the run was stopped.
        is_of_loop: Whether the task that supervises the run was cancelled, by an event loop that ends.

    Args:
        is_decided: Whether the outcome of the run is decided, so that it can only be released.
    """

    def __init__(self, *, is_decided: bool = False) -> None:
        self.reason: CancelReason | None = None
        self.text = ""
        self.requested_mono: float | None = None
        self.scope: anyio.CancelScope | None = None
        self.compensates = False
        self.is_of_loop = False
        self._is_decided = is_decided

    @property
    def is_release(self) -> bool:
        """Whether the run is to be released and continues later, instead of ending."""
        return self.reason in _RELEASES

    def request(self, reason: CancelReason, now_mono: float, text: str | None = None) -> None:
        """Cancel the run's steps for this reason; has no effect if the run is being cancelled already."""
        if self.reason is None and not (self._is_decided and reason in _DECISIONS):
            self.reason, self.text, self.requested_mono = reason, text or reason.value, now_mono
            if self.scope is not None:
                self.scope.cancel()

    def stop(self, request: StopRequest, now_mono: float) -> None:
        """Cancel the run's steps because a user asked for it."""
        if self.reason is None:
            self.compensates = request.compensates
        self.request(CancelReason.USER, now_mono, request.reason)

    def after_decision(self) -> RunCancellation:
        """The cancellation of the run once its outcome is decided: it can be released or lost, but not stopped."""
        cancellation = RunCancellation(is_decided=True)
        if self.reason is not None and self.requested_mono is not None:
            cancellation.request(self.reason, self.requested_mono, self.text)
        return cancellation

    def attach(self, scope: anyio.CancelScope) -> None:
        """Use `scope` as the scope around the run's steps; cancels it if a request was made before."""
        self.scope = scope
        if self.reason is not None:
            scope.cancel()

    def reason_at(self, now_mono: float) -> CancelReason | None:
        """Why the run's steps are being cancelled at that time, or None."""
        if self.reason is not None:
            return self.reason
        is_late = self.scope is not None and self.scope.deadline <= now_mono
        return CancelReason.RUN_TIMEOUT if is_late else None


_RELEASES = frozenset({CancelReason.SHUTDOWN, CancelReason.PARKED})
_DECISIONS = frozenset({CancelReason.USER, CancelReason.CANCELLED, CancelReason.RUN_TIMEOUT})
