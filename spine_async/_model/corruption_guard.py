"""Reports unreadable stored values as corrupt records."""

from __future__ import annotations

from types import TracebackType

from spine_async.errors import CorruptRecordError, SpineError


class CorruptionGuard:
    """A context manager around the reading of stored values: translates decoding errors into `CorruptRecordError`.

    Args:
        run_id: The run that is read.

    Raises:
        CorruptRecordError: A stored value cannot be read. The message never contains the value.
    """

    __slots__ = ("_run_id",)

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, _UNREADABLE) and not isinstance(error, SpineError):
            message = (
                f"run {self._run_id!r} has a stored value that cannot be decoded ({type(error).__name__}); "
                "restore the run from a backup, or delete it"
            )
            raise CorruptRecordError(message) from error


_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
