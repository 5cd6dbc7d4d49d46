"""What goes wrong with PostgreSQL, in the library's own words."""

from __future__ import annotations

import asyncpg
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from spine_async.errors import StoreError, StoreUnavailableError
from spine_async.storage.sql.driver.errors import Faults, unavailable

_HINTS: tuple[tuple[type[Exception], str], ...] = (
    (asyncpg.InvalidAuthorizationSpecificationError, "check user and password in the database URL"),
    (asyncpg.InvalidCatalogNameError, "create the database, or correct its name in the database URL"),
    (asyncpg.InsufficientPrivilegeError, "grant the user what is missing"),
    (asyncpg.UndefinedTableError, "the schema was removed while in use; restart, and it is made anew"),
    (asyncpg.UndefinedObjectError, "a part of the schema was removed; restore it, or remove the rest and restart"),
    (asyncpg.DependentObjectsStillExistError, "remove what depends on it, and make it anew afterwards"),
    (asyncpg.TransactionRollbackError, "other transactions were in the way; try again"),
    (asyncpg.SyntaxOrAccessError, "the tables are not those of this library; were they changed by hand?"),
    (asyncpg.ReadOnlySQLTransactionError, "connect to the primary server, which can be written"),
    (asyncpg.TooManyConnectionsError, "allow more connections, or make the engine's pool smaller"),
    (asyncpg.DiskFullError, "free some space on the server's disk"),
)
# The last is what the driver may say, in place of a lost connection, to who uses it in the moment it breaks.
_CLIENT_ERRORS = (asyncpg.InterfaceError, asyncpg.InternalClientError)
_PASSING = (
    asyncpg.PostgresConnectionError,
    *_CLIENT_ERRORS,
    asyncpg.TransactionRollbackError,  # serialization failures and deadlocks
    asyncpg.OperatorInterventionError,  # the server shuts down, starts up or ends the connection
    asyncpg.ReadOnlySQLTransactionError,  # the primary has become a standby; where it went is found by connecting anew
    asyncpg.TooManyConnectionsError,
    OSError,
)
_LASTING = (
    ValueError,  # the driver refuses what it was called with
    asyncpg.QueryCanceledError,  # a limit that somebody set, and it would be hit again
    asyncpg.DatabaseDroppedError,
)
_REACHABLE = "check that the server runs and that host and port are right"


def postgres_faults(url: URL) -> Faults:
    """What the driver complains about."""
    return Faults(url, (asyncpg.PostgresError, *_CLIENT_ERRORS, SQLAlchemyError, OSError), _error)


def is_passing_on_postgres(exc: Exception) -> bool:
    """Whether another try on a new connection may go better."""
    return (isinstance(exc, _PASSING) and not isinstance(exc, _LASTING)) or _is_stale(exc)


def _is_stale(exc: Exception) -> bool:
    # The schema was made anew, and the connection remembers the types of the old one.
    return isinstance(exc, asyncpg.InternalServerError) and "cache lookup failed for type" in str(exc)


def _error(exc: Exception, name: str) -> StoreError:
    if isinstance(exc, asyncpg.PostgresError):
        exc.detail = None  # "Failing row contains (…)" would show values of params and outputs in the traceback
    if isinstance(exc, asyncpg.IntegrityConstraintViolationError):
        return StoreError(f"{name}: a record was refused ({_told(exc)})")
    if isinstance(exc, asyncpg.DataError):
        return StoreError(f"{name}: a value was refused ({_told(exc)})")
    return _unavailable(exc, name)


def _unavailable(exc: Exception, name: str) -> StoreUnavailableError:
    for kind, way_out in _HINTS:
        if isinstance(exc, kind):
            return unavailable(name, _told(exc), way_out)
    return unavailable(name, _told(exc) or type(exc).__name__, _REACHABLE)


def _told(exc: Exception) -> str:
    """The first line: further ones may quote the statement or a row."""
    text = str(exc.args[0]) if isinstance(exc, asyncpg.PostgresError) and exc.args else str(exc)
    return text.partition("\n")[0]
