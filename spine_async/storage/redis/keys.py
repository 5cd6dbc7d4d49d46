"""Names of keys, and entries of indexes. Ids and names appear in them only as hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

_START = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME_DIGITS = 18
_NUMBER_DIGITS = 16
_HASH_DIGITS = 32


class Keys:
    """The keys of a prefix. Its hash tag puts all of them into one slot of a Redis Cluster.

    Args:
        prefix: Separates the stores on one server.
    """

    def __init__(self, prefix: str) -> None:
        self._tag = f"{{{prefix}}}"
        self.runs = f"{self._tag}:runs"

    def run(self, run_id: str) -> str:
        """The hash of a run."""
        return self.run_of_hash(hashed(run_id))

    def run_of_hash(self, digest: str) -> str:
        """The hash of the run whose id has this hash."""
        return f"{self._tag}:run:{digest}"


def hashed(name: str) -> str:
    """The hash of an id or a name: it may have any characters."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]


def time_prefix(at: datetime) -> str:
    """The beginning of the entries of runs that were created at this time; it sorts as the time does."""
    return f"{(at - _START) // _MICROSECOND:0{_TIME_DIGITS}d}"


def place_prefix(at: datetime, key: int) -> str:
    """The beginning of the entry of the run with this time of creation and this key."""
    return f"{time_prefix(at)}{key:0{_NUMBER_DIGITS}d}"


def hash_of_entry(entry: str) -> str:
    """The hash of the run of an entry."""
    return entry[-_HASH_DIGITS:]


def scope_entry(scope: str, seq: int) -> str:
    """The entry of a visit in the index of scopes; names contain no control characters."""
    return f"{scope}\0{seq:0{_NUMBER_DIGITS}d}"


def containers(scope: str) -> Iterator[str]:
    """The paths in which the scope lies: `a`, `a[1]`, `a[1]/b` and `a[1]/b[2]` for the scope `a[1]/b[2]`."""
    for index, character in enumerate(scope):
        if character in "[/":
            yield scope[:index]
    if scope:
        yield scope


def path_place(path: str) -> str:
    """Where the number of the visit at a path is stored."""
    return f"path {path}"


def step_place(step: str) -> str:
    """Where the number of the last finished visit of a step is stored."""
    return f"step {step}"


def first_place(path: str) -> str:
    """Where the number of the first visit inside a path is stored."""
    return f"first {path}"


def event_place(event_type: str, path: str | None) -> str:
    """Where the last event of a type and path is stored."""
    return f"event {event_type}\0{path if path is not None else '@'}"
