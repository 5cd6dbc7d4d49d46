"""Why a run is cancelled from within, and how its steps come to know.

Source: the architecture's list of reasons. A caller's own cancellation of `execute` has the reason `cancelled`.
"""

from __future__ import annotations

from enum import StrEnum

import anyio


class CancelReason(StrEnum):
    """What a step reads from `context.cancel_reason` while it is being cancelled."""

    USER = "user"
    STEP_TIMEOUT = "step_timeout"
    RUN_TIMEOUT = "run_timeout"
    SHUTDOWN = "shutdown"
    LEASE_LOST = "lease_lost"
    SIBLING_FAILED = "sibling_failed"
    CANCELLED = "cancelled"


class Interruption:
    """The one way to end a run from outside of its steps.

    Attributes:
        reason: Why, once it was asked for; the first one counts.
        text: What is recorded as the run's `stop_reason`.
        since_mono: When it was asked for.
        scope: Encloses the run's steps while they are at work; its deadline is the run's.
    """

    def __init__(self) -> None:
        self.reason: CancelReason | None = None
        self.text = ""
        self.since_mono: float | None = None
        self.scope: anyio.CancelScope | None = None

    def request(self, reason: CancelReason, now_mono: float, text: str | None = None) -> None:
        """Cancel the run's steps for this reason; nothing happens where it was asked for before."""
        if self.reason is None:
            self.reason, self.text, self.since_mono = reason, text or reason.value, now_mono
            if self.scope is not None:
                self.scope.cancel()

    def enclose(self, scope: anyio.CancelScope) -> None:
        """`scope` is what encloses the run's steps from now on."""
        self.scope = scope
        if self.reason is not None:
            scope.cancel()

    def reason_at(self, now_mono: float) -> CancelReason | None:
        """Why the run's steps are being cancelled at that moment, or None."""
        if self.reason is not None:
            return self.reason
        is_late = self.scope is not None and self.scope.deadline <= now_mono
        return CancelReason.RUN_TIMEOUT if is_late else None
