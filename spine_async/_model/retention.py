"""How long ended runs stay stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from spine_async._model.shown import shown
from spine_async._model.status import RunStatus
from spine_async._model.time_option import option_seconds
from spine_async.errors import DefinitionError

_MOST_KEPT = 10_000
_AGES = ("completed", "failed", "stopped")


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Which ended runs are removed. A run that has not ended, or whose parent has not ended, is never removed.

    Attributes:
        completed: How long a completed run stays stored after its end: seconds, or a `timedelta`. None: it is kept.
        failed: The same for a failed run.
        stopped: The same for a stopped run.
        keep_last: Number of the newest ended runs of each workflow that stay stored whatever their age; at most 10,000.
            If no age is given, all other ended runs are removed. None: only the age decides.

    Raises:
        DefinitionError: An age is not a duration, or `keep_last` is out of range.
    """

    completed: float | timedelta | None = None
    failed: float | timedelta | None = None
    stopped: float | timedelta | None = None
    keep_last: int | None = None

    def __post_init__(self) -> None:
        for name in _AGES:
            value = getattr(self, name)
            if value is None:
                continue
            try:
                object.__setattr__(self, name, option_seconds(value, name))
            except ValueError as exc:
                raise DefinitionError(f"RetentionPolicy: {exc}") from None
        keep = self.keep_last
        if keep is not None and (not isinstance(keep, int) or isinstance(keep, bool) or not 1 <= keep <= _MOST_KEPT):
            raise DefinitionError(
                f"RetentionPolicy: keep_last is {shown(keep)}; it must be an integer from 1 to {_MOST_KEPT:,}, or None"
            )

    @property
    def ages(self) -> dict[RunStatus, timedelta]:
        """How long after its end a run may be removed, by its final status; a missing status is never removed."""
        given = {name: getattr(self, name) for name in _AGES}
        if self.keep_last is not None and all(age is None for age in given.values()):
            given = dict.fromkeys(_AGES, 0.0)
        return {RunStatus(name): timedelta(seconds=age) for name, age in given.items() if age is not None}
