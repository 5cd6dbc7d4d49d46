"""How the steps of a scope ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spine_async._engine.state.cancellation import CancelReason
from spine_async._model.run_change import RunEnd
from spine_async._model.status import RunStatus


@dataclass(slots=True)
class Outcome:
    """How the steps of a run or of a map item ended: completed, failed with an error, or stopped with a reason.

    Attributes:
        exception: The exception of the failed step, or None; it is not stored.
    """

    status: RunStatus
    error_step: str | None = None
    error: str | None = None
    error_category: str | None = None
    stop_reason: str | None = None
    exception: BaseException | None = None

    def at(self, moment: datetime) -> RunEnd:
        """The end of a run in its stored form."""
        return RunEnd(
            self.status,
            moment,
            error_step=self.error_step,
            error=self.error,
            error_category=self.error_category,
            stop_reason=self.stop_reason,
        )


COMPLETED = Outcome(RunStatus.COMPLETED)
SHUTDOWN = Outcome(RunStatus.STOPPED, stop_reason=CancelReason.SHUTDOWN.value)
"""What the callers of a run receive if a shutdown has released it; the stored run is `pending` or `waiting`."""
