"""Translates errors of redis-py into the library's errors.

The texts of errors are quoted only where they contain neither values nor credentials.
"""

from __future__ import annotations

from spine_async.errors import StoreError, StoreUnavailableError
from spine_async.storage.redis.driver import exceptions

_TRANSIENT_CODES = ("LOADING", "READONLY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "BUSY", "NOREPLICAS")
"""Codes of errors that a retry may not get: the server is starting, or another one takes its place."""

_HINTS = {
    "OOM": "its memory is used up; raise maxmemory, or delete runs",
    "MISCONF": "it cannot write to its disk, and refuses writes; see its log",
    "READONLY": "it is a replica; use the URL of the master, or a client of Sentinel",
    "MOVED": "another node of the cluster has the keys; use the URL of the node that has them",
    "CROSSSLOT": "it does not keep the keys in one slot",
    "NOPERM": "the user may not use a command or a key; allow the commands that docs/redis-store.md lists",
    "WRONGTYPE": "another program uses keys of this prefix; use another prefix",
    "UNKNOWN": "it does not know a command; Redis 5 or later is required",
}


_REFUSALS = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.MaxConnectionsError)


def is_transient(error: Exception) -> bool:
    """Whether a retry may succeed."""
    if isinstance(error, _REFUSALS):
        return False
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | TimeoutError | OSError):
        return True
    return isinstance(error, exceptions.ResponseError) and _code(error) in _TRANSIENT_CODES


def translated(error: Exception, location: str, seconds: float) -> StoreError:
    """The error to raise for an error of redis-py."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return StoreUnavailableError(f"{location} refused the user name or the password; check the Redis URL")
    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return StoreUnavailableError(f"{location}: no answer within {seconds:.3g} s; check the server and the network")
    if is_transient(error):
        return StoreUnavailableError(f"{location} cannot be reached ({type(error).__name__}); check that it runs")
    code = _code(error)
    hint = _HINTS.get(code, "see the log of the server")
    kind = StoreUnavailableError if code in {"OOM", "MISCONF"} else StoreError
    return kind(f"{location} refused a command ({code or type(error).__name__}): {hint}")


def _code(error: Exception) -> str:
    """The first word of a reply, in capital letters; redis-py removes it from the texts of some errors."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    words = str(error).replace(":", " ").split()
    for word in words[:1]:
        if word.isupper() and word.isalpha():
            return word if word != "ERR" else "UNKNOWN" if "unknown command" in str(error).lower() else "ERR"
    # An error inside of a script repeats the code in its text.
    return next((code for code in _HINTS if f"{code} " in str(error)), "")


_CODES = {
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.MovedError: "MOVED",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.ClusterCrossSlotError: "CROSSSLOT",
}
