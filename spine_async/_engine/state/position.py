"""The position of a scope in its steps, as the replay of stored visits computes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.tally import Tally
from spine_async._engine.state.unwinding import Unwinding
from spine_async._model.context import WorkflowContext
from spine_async._model.document import Document


@dataclass(frozen=True, slots=True)
class StoredRetry:
    """A stored delay before another attempt of a step.

    Attributes:
        attempts: Attempts made before.
        until: When the delay ends.
    """

    attempts: int
    until: datetime

    def as_dict(self) -> dict[str, object]:
        """The stored form."""
        return {"attempts": self.attempts, "until": self.until.isoformat()}

    @classmethod
    def from_dict(cls, stored: object) -> StoredRetry:
        """The delay in its stored form; raises `ValueError`, `KeyError` or `TypeError` if it is none."""
        values: Any = stored
        return cls(int(values["attempts"]), datetime.fromisoformat(values["until"]))


@dataclass(slots=True)
class Position:
    """The position of a scope in its steps: before the first one, or after the replayed visits.

    Attributes:
        cursor: The step that comes next.
        context: The context that it sees.
        waits: The end time (ISO 8601) of each wait that has begun, by the path of its visit; None: it has no limit.
        last_output: Output of the last step that ran.
        tally: Counts of the replayed visits; used for the run's own scope only.
        retries: The stored delays before another attempt, by the path of the visit.
        reported_path: Path of the last visit that has stored its progress, or None.
        has_calls: Whether a visit in the scope of an item has recorded a call of `context.once`.
        unwinding: What remains to be done if the steps of the run have ended; else None.
        cleanup: The position in the cleanup steps of the run, if they have begun before; else None.
        resumed_epoch: The claim of the last resume that is stored; 0 if there is none.
    """

    cursor: Cursor
    context: WorkflowContext
    waits: dict[str, str | None] = field(default_factory=dict)
    last_output: Document | None = None
    tally: Tally = field(default_factory=Tally)
    retries: dict[str, StoredRetry] = field(default_factory=dict)
    reported_path: str | None = None
    has_calls: bool = False
    unwinding: Unwinding | None = None
    cleanup: Cursor | None = None
    resumed_epoch: int = 0
