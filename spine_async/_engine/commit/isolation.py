"""Divides records into groups that a store can write: of bounded size, and without a record that it rejects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from spine_async.errors import SharingError, SpineError, StoreError, StoreUnavailableError

RecordT = TypeVar("RecordT")
AnswerT = TypeVar("AnswerT")

MAX_GROUP_BYTES = 16 * 1024 * 1024
"""Approximate size of what one call of the store writes; a single larger record is written in a call of its own.

A database has limits for a message (PostgreSQL: 1 GiB), and a large group delays the runs whose records are small.
"""


def in_groups(records: Sequence[RecordT], size: Callable[[RecordT], int]) -> Iterator[Sequence[RecordT]]:
    """The records in order, in groups of at most `MAX_GROUP_BYTES` or of one record."""
    first, total = 0, 0
    for index, record in enumerate(records):
        added = size(record)
        if index > first and total + added > MAX_GROUP_BYTES:
            yield records[first:index]
            first, total = index, 0
        total += added
    if first < len(records):
        yield records[first:]


async def call_isolated(
    write: Callable[[Sequence[RecordT]], Awaitable[Sequence[AnswerT]]], records: Sequence[RecordT]
) -> list[AnswerT | StoreError]:
    """Write records in one call; if the store refuses them, write each half in a call of its own, and so on.

    So the error of a record is raised by a call that contained no other record, and cannot name another run.

    Args:
        write: Writes records and gives an answer for each. A second call with the same record must be safe.
        records: The records.

    Returns:
        For each record its answer, or the error with which the store refused it.

    Raises:
        StoreUnavailableError: The store cannot be reached; the records are not the cause.
    """
    try:
        return [*await write(records)]
    except (StoreUnavailableError, SharingError):
        raise
    except Exception as exc:  # noqa: BLE001 - a driver may raise anything for a value that it cannot convert
        if len(records) == 1:
            return [store_error(exc, "the store refused a record")]
    middle = len(records) // 2
    return [*await call_isolated(write, records[:middle]), *await call_isolated(write, records[middle:])]


def as_store_error(exc: BaseException) -> StoreError | SharingError:
    """The error that a caller receives for an error that ended the writing of a group."""
    if isinstance(exc, SharingError):
        return exc
    return store_error(exc, "the commit failed unexpectedly", StoreUnavailableError)


def store_error(exc: BaseException, problem: str, kind: type[StoreError] = StoreError) -> StoreError:
    """An error of a store as a `StoreError`.

    Args:
        exc: The error. Its message is not repeated, because that of a foreign error may contain values.
        problem: What happened, for the message.
        kind: Type of the result for a foreign error.
    """
    if isinstance(exc, StoreError):
        return exc
    error = StoreError(str(exc)) if isinstance(exc, SpineError) else kind(f"{problem}: {type(exc).__name__}")
    error.__cause__ = exc
    return error
