"""Visits of steps and items of maps as users receive them, for pages that show a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from spine_async._model.status import StepStatus, StepType


@dataclass(frozen=True, slots=True)
class VisitRecord:
    """A visit of a step that has ended. Times are aware, in UTC.

    Attributes:
        path: Position in the run, such as `review#2` or `process_all[17]/resize`.
        seq: Number of its end event; increases with time.
        status: `completed`, `skipped` or `failed`. A failed visit is stored only if the run continued.
        duration: Seconds from its start to its end.
        error: Text of a failure, or the reason of a skip; else None.
        target: For a failure that was caught: the step that followed; else None.
        updates: The params that it changed; None if values were not asked for.
        appended: The elements that it appended to params; None if values were not asked for.
        output: Its output; None if it has none, or if values were not asked for.
        output_size: Bytes of the output in JSON.
    """

    path: str
    seq: int
    step_name: str
    kind: StepType
    status: StepStatus
    attempts: int
    started_at: datetime
    duration: float
    error: str | None = None
    error_category: str | None = None
    target: str | None = None
    updates: Mapping[str, object] | None = field(default=None, repr=False)
    appended: Mapping[str, object] | None = field(default=None, repr=False)
    output: object = field(default=None, repr=False)
    output_size: int = 0


@dataclass(frozen=True, slots=True)
class ItemState:
    """An item of a map that has begun, as far as its steps have ended.

    Attributes:
        index: Index of the item.
        has_ended: Whether it has completed or failed.
        duration: Seconds that its finished steps took together; 0 if they are not known.
        attempts: The most attempts that one of its steps took; 0 if they are not known.
        error: Error text if it has failed; else None.
        error_category: Category of the error, or None.
    """

    index: int
    has_ended: bool
    duration: float
    attempts: int
    error: str | None = None
    error_category: str | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it has failed."""
        return self.error is not None


@dataclass(frozen=True, slots=True)
class MapItems:
    """The items of a map.

    Attributes:
        path: Path of the visit of the map.
        states: The items of which a step has ended, or that have failed, by index.
        total: Number of all items; None if it is not known.
    """

    path: str
    states: Sequence[ItemState]
    total: int | None
