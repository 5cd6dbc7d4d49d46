"""Queues, and runs that are put into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from spine_async._model.naming import text_problem
from spine_async._model.record import DueTime
from spine_async._model.time_option import in_utc, option_seconds, positive_option_seconds
from spine_async.errors import DefinitionError

DEFAULT_QUEUE = "default"
MAX_QUEUE_NAME = 200
LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""The latest due time; PostgreSQL's driver takes the last moment of Python for infinity."""

MAX_PRIORITY = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that a runner works on.

    Attributes:
        name: Name of the queue.
    """

    name: str

    def __post_init__(self) -> None:
        check_queue_name(self.name)


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
        raise DefinitionError(f"invalid queue {name!r:.80}: {problem.replace('a name', 'a queue name', 1)}")
    return str(name)


def check_key(key: object) -> None:
    """Check the key of a run within its queue.

    Raises:
        DefinitionError: It is no text that can be a key.
    """
    problem = text_problem(key, MAX_QUEUE_NAME) if key is not None else None
    if problem is not None:
        raise DefinitionError(f"invalid key {key!r:.80}: {problem.replace('a name', 'a key', 1)}")


def check_priority(priority: object) -> None:
    """Check a priority.

    Raises:
        DefinitionError: It is no integer of 32 bits.
    """
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > MAX_PRIORITY:
        raise DefinitionError(f"priority is {priority!r:.80}; it must be an integer, and lower numbers come first")


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
        if not isinstance(at, datetime):
            raise DefinitionError(f"at is of type {type(at).__name__}; it must be an aware datetime")
        return DueTime(min(in_utc(at), LATEST))
    except DefinitionError:
        raise
    except (ValueError, OverflowError) as exc:
        raise DefinitionError(str(exc).replace("until ", "at ", 1)) from None


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
