"""Queues, and runs that are put into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from spine_async._model.naming import text_problem
from spine_async._model.run_row import DueTime
from spine_async._model.shown import shown
from spine_async._model.time_option import in_utc, option_seconds, positive_option_seconds, to_seconds
from spine_async.errors import DefinitionError

DEFAULT_QUEUE = "default"
MAX_QUEUE_NAME = 200
LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""The latest due time; PostgreSQL's driver takes the last moment of Python for infinity."""

MAX_PRIORITY = 2**31 - 1
LISTED_FOR = 60.0
"""Seconds for which a queue counts as listed by a working runner."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `runs` runs of a queue begin within any `per` seconds.

    Attributes:
        runs: Number of runs, at least 1.
        per: Length of the sliding window: seconds, or a `timedelta`; stored as seconds.

    Raises:
        DefinitionError: `runs` or `per` is out of range.
    """

    runs: int
    per: float | timedelta = 1.0

    def __post_init__(self) -> None:
        _check_count("RateLimit", "runs", self.runs)
        try:
            seconds = positive_option_seconds(self.per, "per")
        except ValueError as exc:
            raise DefinitionError(f"RateLimit: {str(exc).removesuffix(', or None for no limit')}") from None
        object.__setattr__(self, "per", seconds)

    @property
    def seconds(self) -> float:
        """Length of the window in seconds."""
        return to_seconds(self.per)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that a runner works on, with its limits; None means no limit.

    The limits count runs that are *held*, that is, executed by a runner. A run that waits for long is parked, so it
    does not count. The limits of the runner that claims a run apply, so give all runners the same.

    Attributes:
        name: Name of the queue.
        concurrency: Maximum number of held runs of the queue in the whole store.
        per_process: Maximum number of runs of the queue that this runner holds.
        per_key: Maximum number of held runs of the queue with the same key. Runs without a key are not limited by it.
        rate: How many runs of the queue may begin within a time. Runs that continue do not count.

    Raises:
        DefinitionError: The name cannot be the name of a queue, or a limit is invalid.
    """

    name: str
    concurrency: int | None = None
    per_process: int | None = None
    per_key: int | None = None
    rate: RateLimit | None = None

    def __post_init__(self) -> None:
        check_queue_name(self.name)
        for option in ("concurrency", "per_process", "per_key"):
            value = getattr(self, option)
            if value is not None:
                _check_count(f"queue {self.name!r}", option, value)
        if self.rate is not None and not isinstance(self.rate, RateLimit):
            raise DefinitionError(
                f"queue {self.name!r}: rate is {shown(self.rate)}; it must be RateLimit(runs, per=seconds)"
            )

    @property
    def is_limited(self) -> bool:
        """Whether it has any limit."""
        return self.limits_held or self.rate is not None

    @property
    def limits_held(self) -> bool:
        """Whether it limits how many runs are held."""
        return any(each is not None for each in (self.concurrency, self.per_process, self.per_key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """One of the runs that `enqueue_many` stores; see `WorkflowRunner.enqueue` for the fields."""

    params: Mapping[str, object] | None = None
    partition: Mapping[str, object] | None = None
    run_id: str | None = None
    key: str | None = None
    priority: int = 0
    delay: float | timedelta | None = None
    at: datetime | None = None
    expires: float | timedelta | None = None


def check_queue_name(name: object) -> str:
    """Check and return the name of a queue.

    Raises:
        DefinitionError: It is empty, too long, or contains characters that cannot be printed.
    """
    problem = text_problem(name, MAX_QUEUE_NAME)
    if problem is not None:
        raise DefinitionError(f"invalid queue {shown(name)}: {problem.replace('a name', 'a queue name', 1)}")
    return str(name)


def _check_count(what: str, option: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_PRIORITY:
        raise DefinitionError(f"{what}: {option} is {shown(value)}; it must be an integer of at least 1")


def check_key(key: object) -> None:
    """Check the key of a run within its queue.

    Raises:
        DefinitionError: It is no text that can be a key.
    """
    problem = text_problem(key, MAX_QUEUE_NAME) if key is not None else None
    if problem is not None:
        raise DefinitionError(f"invalid key {shown(key)}: {problem.replace('a name', 'a key', 1)}")


def check_priority(priority: object) -> None:
    """Check a priority.

    Raises:
        DefinitionError: It is no integer of 32 bits.
    """
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > MAX_PRIORITY:
        raise DefinitionError(f"priority is {shown(priority)}; it must be an integer, and lower numbers come first")


def due_time(delay: object, at: object, now: datetime) -> DueTime:
    """When a run is due that was enqueued with these options.

    Raises:
        DefinitionError: Both are given, the delay is negative or no duration, or `at` has no time zone.
    """
    if delay is not None and at is not None:
        raise DefinitionError("delay and at are both given; give one of them")
    try:
        if at is None:
            seconds = option_seconds(0.0 if delay is None else delay, "delay")
            return DueTime(now + timedelta(seconds=seconds), seconds)
        return DueTime(min(in_utc(at, "at"), LATEST))  # type: ignore[arg-type] # `in_utc` checks the type
    except (ValueError, OverflowError) as exc:
        raise DefinitionError(str(exc)) from None


def expiry(expires: object, due: DueTime) -> datetime | None:
    """When a run expires: `expires` after it is due.

    Raises:
        DefinitionError: It is no positive duration.
    """
    if expires is None:
        return None
    try:
        return (due.at + timedelta(seconds=positive_option_seconds(expires, "expires"))).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise DefinitionError(str(exc)) from None
