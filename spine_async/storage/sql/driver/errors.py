"""What goes wrong in drivers, in the library's own words.

Mapped once, here at the border. The texts of drivers are quoted only where they hold no values of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from spine_async.errors import StoreError, StoreUnavailableError
from spine_async.storage.sql.driver.url import shown


class Faults:
    """A context that raises what a driver complains about as an error of ours, which names the database.

    One serves all calls: it keeps nothing between them, and each commit goes through it.

    Args:
        url: The database.
        kinds: The errors that the driver and what it stands on may raise.
        told: What to raise for the driver's own error and the name of the database; None leaves it as it is.
    """

    __slots__ = ("_kinds", "_told", "_url")

    def __init__(
        self, url: URL, kinds: tuple[type[Exception], ...], told: Callable[[Exception, str], StoreError | None]
    ) -> None:
        self._url = url
        self._kinds = kinds
        self._told = told

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not isinstance(error, self._kinds):
            return
        cause = origin(error)
        told = self._told(cause, shown(self._url))
        if told is not None:
            raise told from cause


def origin(exc: Exception) -> Exception:
    """The driver's own error: SQLAlchemy's wrapper repeats the statement with all values."""
    cause: BaseException | None = exc.orig if isinstance(exc, DBAPIError) else exc
    # SQLAlchemy's own asyncpg adapter wraps once more.
    if isinstance(exc, DBAPIError) and cause is not None and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    return cause if isinstance(cause, Exception) else exc


def unavailable(name: str, why: str, way_out: str) -> StoreUnavailableError:
    """The error with what a reader needs: which database, why, and what to do."""
    return StoreUnavailableError(f"{name}: {why}; {way_out}")
