"""Whether all tasks of a run wait, and until when.

A run that is idle has nothing to do until a time comes or a message arrives. Its tasks count as busy unless they report
that they wait. So a run is never idle by mistake; at worst it is kept in memory although it could be parked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from spine_async._model.run_row import DueTime


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """What one task waits for.

    Attributes:
        due: When the wait ends; None: only a message ends it.
        awaits_messages: Whether a message may end it.
    """

    due: DueTime | None
    awaits_messages: bool = False


@dataclass(frozen=True, slots=True)
class Idle:
    """The waits of an idle run.

    Attributes:
        waits: What its tasks wait for.
        activity: Number of waits that had ended before.
        changes: Number of times that a task had begun or ended a wait before.
    """

    waits: tuple[Wait, ...]
    activity: int
    changes: int

    @property
    def due(self) -> DueTime | None:
        """The time at which the first of the waits ends; None if only a message ends one."""
        times = [wait.due for wait in self.waits if wait.due is not None]
        return min(times, key=lambda due: due.at, default=None)

    @property
    def awaits_messages(self) -> bool:
        """Whether a message may end one of the waits."""
        return any(wait.awaits_messages for wait in self.waits)


class Idleness:
    """Counts the tasks of a run that are busy.

    Attributes:
        on_idle: Called whenever the run has become idle; None while nobody wants to know.
    """

    __slots__ = ("_activity", "_busy", "_changes", "_waits", "on_idle")

    def __init__(self) -> None:
        self._busy = 1  # the run's own task
        self._waits: set[Wait] = set()
        self._activity = 0
        self._changes = 0
        self.on_idle: Callable[[], None] | None = None

    @property
    def idle(self) -> Idle | None:
        """What the run waits for; None while a task is busy."""
        return Idle(tuple(self._waits), self._activity, self._changes) if self._busy == 0 and self._waits else None

    @property
    def is_last_at_work(self) -> bool:
        """Whether the running task is the only one that does not wait."""
        return self._busy == 1

    def has_moved_since(self, idle: Idle) -> bool:
        """Whether a wait has ended, other than by a cancellation, since the run was found idle."""
        return self._activity != idle.activity

    def begin_task(self) -> None:
        """Count another task."""
        self._busy += 1
        self._changes += 1

    def end_task(self) -> None:
        """Count one task less."""
        self._leave()

    @contextmanager
    def waiting_for_tasks(self) -> Iterator[None]:
        """Inside, the running task only waits for other tasks of the run."""
        self._leave()
        try:
            yield
        finally:
            self.begin_task()

    @contextmanager
    def waiting(self, wait: Wait) -> Iterator[None]:
        """Inside, the running task only waits for `wait`."""
        self._waits.add(wait)
        self._leave()
        try:
            yield
            self._activity += 1  # not after a cancellation
        finally:
            self.begin_task()
            self._waits.discard(wait)

    def _leave(self) -> None:
        self._busy -= 1
        self._changes += 1
        if self._busy == 0 and self.on_idle is not None:
            self.on_idle()
