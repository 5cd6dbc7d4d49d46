"""What a store has under way, as users receive it: its queues, the workers, and the waits for signals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from spine_async._model.history import RunRecord
from spine_async._model.queue import Queue


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """A queue with the numbers of its runs that have not ended. Times are aware, in UTC.

    Attributes:
        name: Name of the queue; None for the runs that belong to no queue, such as those of `start` and `execute`.
        limits: The limits with which this runner works on it; None if it has none here.
        waiting: Runs that a worker may claim now.
        held: Runs that a worker executes.
        delayed: Runs whose time has not come.
        parked: Runs that wait and that no process holds.
        oldest_due_at: When the run became due that has waited longest for its first claim; None if none waits.
        oldest_wait: Seconds since then, or None.
        listed_at: When a working runner last recorded that it works on the queue; None if none ever did.
        is_exact: Whether all runs were counted. Else there may be more.
    """

    name: str | None
    limits: Queue | None
    waiting: int
    held: int
    delayed: int
    parked: int
    oldest_due_at: datetime | None
    oldest_wait: float | None
    listed_at: datetime | None
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A runner that holds runs, and the process that it belongs to.

    Attributes:
        owner: Its name in the store; `list_runs(owner=...)` lists its runs.
        host: Name of its host.
        pid: Its process id; 0 if it is not known.
        held: Numbers of the runs that it holds, by queue; None stands for no queue.
        is_this_process: Whether it is the runner that was asked.
        is_gone: Whether it was a process on this host that does not exist any more. False if that is uncertain.
    """

    owner: str
    host: str
    pid: int
    held: Mapping[str | None, int]
    is_this_process: bool
    is_gone: bool

    @property
    def total(self) -> int:
        """Number of the runs that it holds."""
        return sum(self.held.values())


@dataclass(frozen=True, slots=True)
class SignalWait:
    """A visit of a run that waits for a signal. Times are aware, in UTC.

    Attributes:
        run: The run.
        name: Name of the signal.
        path: Path of the visit. It is also the token that addresses this visit only, see `context.signal_token`.
        step_name: Name of the step.
        since: When the wait began, or was continued.
        until: When it times out; None if it does not.
    """

    run: RunRecord
    name: str
    path: str
    step_name: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class SignalWaits:
    """A page of the waits for signals.

    Attributes:
        waits: The waits, those of the newest runs first.
        cursor: Continues the listing; None at its end. A page may have fewer waits than its limit, or none.
    """

    waits: tuple[SignalWait, ...]
    cursor: str | None
