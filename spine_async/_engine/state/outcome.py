"""How the steps of a scope come to an end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spine_async._model.record import RunEnd
from spine_async._model.status import RunStatus


@dataclass(slots=True)
class ScopeEnd:
    """How the steps of a scope came to an end."""

    status: RunStatus
    error_step: str | None = None
    error: str | None = None
    category: str | None = None
    reason: str | None = None

    def at(self, moment: datetime) -> RunEnd:
        """The end of a run, as it is stored."""
        return RunEnd(self.status, moment, self.error_step, self.error, self.category, self.reason)


COMPLETED = ScopeEnd(RunStatus.COMPLETED)
