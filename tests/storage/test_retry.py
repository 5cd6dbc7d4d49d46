"""Retries are bounded and stop at the first permanent error."""

from __future__ import annotations

import asyncpg
import pytest

from spine_async.storage.sql.driver.retry import DELAYS
from spine_async.storage.sql.driver.time_limit import DEFAULT_SECONDS, Call, TimeLimit
from spine_async.storage.sql.postgres.errors import is_transient_on_postgres
from spine_async.testing import run_virtual


class _Work:
    """Fails with the given errors, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.attempts: list[bool] = []

    async def __call__(self, call: Call) -> str:
        self.attempts.append(bool(self.attempts))  # whether it is a retry
        if self._errors:
            raise self._errors.pop(0)
        return "done"


async def _retried(work: _Work) -> str:
    return await TimeLimit("db", DEFAULT_SECONDS).call("work").retry(work, _is_os_error)


def _is_os_error(exc: Exception) -> bool:
    return isinstance(exc, OSError)


def test_a_transient_error_is_retried() -> None:
    work = _Work(OSError(), OSError())
    assert run_virtual(lambda: _retried(work)) == "done"
    assert work.attempts == [False, True, True]


def test_another_error_is_raised_at_once() -> None:
    work = _Work(OSError(), KeyError("no"))
    with pytest.raises(KeyError):
        run_virtual(lambda: _retried(work))
    assert work.attempts == [False, True]


def test_retries_are_bounded() -> None:
    work = _Work(*(OSError() for _ in range(100)))
    with pytest.raises(OSError):  # noqa: PT011 (a plain one)
        run_virtual(lambda: _retried(work))
    assert len(work.attempts) == len(DELAYS) + 1
    assert sum(DELAYS) < DEFAULT_SECONDS == 10


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.AdminShutdownError(),
        asyncpg.CrashShutdownError(),
        asyncpg.ReadOnlySQLTransactionError(),
        asyncpg.SerializationError(),
        asyncpg.DeadlockDetectedError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("lost"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_transient_errors_on_postgres(error: Exception) -> None:
    assert is_transient_on_postgres(error)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UniqueViolationError(),
        asyncpg.UndefinedTableError(),
        asyncpg.QueryCanceledError(),
        asyncpg.InvalidPasswordError(),
        asyncpg.InvalidCatalogNameError(),
        asyncpg.exceptions._base.DataError("invalid input for query argument"),
        ValueError(),
        RuntimeError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_permanent_errors_on_postgres(error: Exception) -> None:
    assert not is_transient_on_postgres(error)
