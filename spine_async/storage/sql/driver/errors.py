"""Translates driver errors into the library's errors.

The messages of drivers are quoted only where they contain no values of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from spine_async.errors import StoreError, StoreUnavailableError
from spine_async.storage.sql.driver.url import redacted


class ErrorMapper:
    """Context manager that raises driver errors as errors of this library with the database's name.

    One instance serves all calls, also concurrent ones, because it has no state per call.

    Args:
        url: URL of the database.
        error_types: Error types of the driver and its dependencies.
        translate: Takes the driver's error and the database's name, and returns the error to raise. If it returns
            None, the driver's error continues unchanged.
    """

    __slots__ = ("_error_types", "_translate", "_url")

    def __init__(
        self,
        url: URL,
        error_types: tuple[type[Exception], ...],
        translate: Callable[[Exception, str], StoreError | None],
    ) -> None:
        self._url = url
        self._error_types = error_types
        self._translate = translate

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not isinstance(error, self._error_types):
            return
        cause = driver_error(error)
        translated = self._translate(cause, redacted(self._url))
        if translated is not None:
            raise translated from cause


def driver_error(exc: Exception) -> Exception:
    """The driver's own error; SQLAlchemy's wrapper repeats the statement with all values."""
    cause: BaseException | None = exc.orig if isinstance(exc, DBAPIError) else exc
    # SQLAlchemy's asyncpg adapter wraps the error a second time.
    if isinstance(exc, DBAPIError) and cause is not None and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    return cause if isinstance(cause, Exception) else exc


def unavailable(name: str, reason: str, hint: str) -> StoreUnavailableError:
    """The error for the database `name`, with the reason and a hint for the operator."""
    return StoreUnavailableError(f"{name}: {reason}; {hint}")
