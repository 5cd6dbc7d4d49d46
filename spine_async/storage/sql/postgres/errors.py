"""Translates PostgreSQL errors into the library's errors."""

from __future__ import annotations

import asyncpg
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from spine_async.errors import StoreError, StoreUnavailableError
from spine_async.storage.sql.driver.errors import ErrorMapper, unavailable

_HINTS: tuple[tuple[type[Exception], str], ...] = (
    (asyncpg.InvalidAuthorizationSpecificationError, "check user and password in the database URL"),
    (asyncpg.InvalidCatalogNameError, "create the database, or correct its name in the database URL"),
    (asyncpg.InsufficientPrivilegeError, "grant the user the missing privilege"),
    (asyncpg.UndefinedTableError, "the schema was removed while in use; restart to create it again"),
    (asyncpg.UndefinedObjectError, "a part of the schema was removed; restore it, or remove the rest and restart"),
    (asyncpg.DependentObjectsStillExistError, "drop the dependent objects, upgrade, and create them again"),
    (asyncpg.LockNotAvailableError, "another transaction has locked the row; find it, and end it"),
    (asyncpg.TransactionRollbackError, "the transaction conflicted with others; try again"),
    (asyncpg.SyntaxOrAccessError, "the tables are not those of this library; were they changed by hand?"),
    (asyncpg.ReadOnlySQLTransactionError, "connect to the primary server, which accepts writes"),
    (asyncpg.TooManyConnectionsError, "allow more connections, or make the engine's pool smaller"),
    (asyncpg.DiskFullError, "free some space on the server's disk"),
)
# While a connection breaks, asyncpg may raise InternalClientError instead of a connection error.
_CLIENT_ERRORS = (asyncpg.InterfaceError, asyncpg.InternalClientError)
_TRANSIENT = (
    asyncpg.PostgresConnectionError,
    *_CLIENT_ERRORS,
    asyncpg.TransactionRollbackError,  # serialization failures and deadlocks
    asyncpg.OperatorInterventionError,  # the server shuts down, starts up or terminates the connection
    asyncpg.ReadOnlySQLTransactionError,  # the primary became a standby; a new connection may reach the new primary
    asyncpg.TooManyConnectionsError,
    asyncpg.LockNotAvailableError,
    OSError,
)
_PERMANENT = (
    ValueError,  # the driver rejects its arguments
    asyncpg.QueryCanceledError,  # a timeout of the server's, which a retry would exceed again
    asyncpg.DatabaseDroppedError,
)
# The written record is the cause. The database may accept other records.
_REFUSED = (
    asyncpg.DataError,
    asyncpg.ProgramLimitExceededError,  # a row that is too large for a page of an index, a message or a field
    asyncpg.OutOfMemoryError,
)
_UNREACHABLE_HINT = "check that the server runs and that host and port are right"


def postgres_error_mapper(url: URL) -> ErrorMapper:
    """Maps the errors of asyncpg and of the network."""
    return ErrorMapper(url, (asyncpg.PostgresError, *_CLIENT_ERRORS, SQLAlchemyError, OSError), _translate)


def is_transient_on_postgres(exc: Exception) -> bool:
    """Whether a retry on a new connection may succeed."""
    return (isinstance(exc, _TRANSIENT) and not isinstance(exc, _PERMANENT)) or _is_stale_type(exc)


def is_rejected_statement(exc: BaseException | None) -> bool:
    """Whether the server answered that the statement does not fit its tables, types or constraints."""
    return isinstance(exc, asyncpg.PostgresError) and not is_transient_on_postgres(exc)


def _is_stale_type(exc: Exception) -> bool:
    # The schema was dropped and created again, and the connection caches the old row types.
    return isinstance(exc, asyncpg.InternalServerError) and "cache lookup failed for type" in str(exc)


def _is_too_large(exc: Exception) -> bool:
    return isinstance(exc, asyncpg.InternalServerError) and "memory alloc request size" in str(exc)


def _translate(exc: Exception, name: str) -> StoreError:
    if isinstance(exc, asyncpg.PostgresError):
        exc.detail = None  # "Failing row contains (…)" would show values of params and outputs in the traceback
    if isinstance(exc, asyncpg.IntegrityConstraintViolationError):
        return StoreError(f"{name}: a constraint rejected a row ({_message(exc)})")
    if isinstance(exc, _REFUSED) or _is_too_large(exc):
        return StoreError(f"{name}: a value was rejected ({_message(exc)})")
    if isinstance(exc, asyncpg.InterfaceError) and isinstance(exc, ValueError):
        exc.args = ("the driver cannot convert an argument",)  # its own message quotes the argument
        return StoreError(f"{name}: a value was rejected (it is out of the range of its column)")
    return _unavailable(exc, name)


def _unavailable(exc: Exception, name: str) -> StoreUnavailableError:
    for kind, hint in _HINTS:
        if isinstance(exc, kind):
            return unavailable(name, _message(exc), hint)
    return unavailable(name, _message(exc) or type(exc).__name__, _UNREACHABLE_HINT)


def _message(exc: Exception) -> str:
    """The first line of the message; further lines may quote the statement or a row."""
    text = str(exc.args[0]) if isinstance(exc, asyncpg.PostgresError) and exc.args else str(exc)
    return text.partition("\n")[0]
