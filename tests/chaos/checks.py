"""Invariants of a store and a diary after any fault. A check raises `Violation` if its invariant does not hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from spine_async.storage import MemoryRunStore
from spine_async.storage.derived_events import merge_events
from tests.chaos.diary import Entry

Rows = list[tuple[Any, ...]]
Where = tuple[str, str]
_RUNS = "SELECT run_id, status, epoch, next_seq FROM core_workflow_runs"
_STEPS = (
    "SELECT r.run_id, s.path, s.seq, s.epoch, s.commit_id FROM core_workflow_steps s "
    "JOIN core_workflow_runs r ON r.id = s.run ORDER BY s.seq"
)
_EVENTS = "SELECT run_id, seq, event_type, path FROM core_workflow_events ORDER BY seq"


class Violation(AssertionError):  # noqa: N818 (it is an assertion)
    """A guarantee of the library does not hold."""


def require(holds: bool, message: str) -> None:
    if not holds:
        raise Violation(message)


@dataclass
class Stored:
    """What is stored, as plain rows.

    Attributes:
        runs: Status, epoch and next number by run id.
        steps: Run id, path, number, epoch and commit id, in the order of the numbers.
        events: Run id, number, type and path, likewise.
    """

    runs: dict[str, tuple[str, int, int]]
    steps: Rows
    events: Rows


class Reader:
    """Reads a database by plain SQL over its own connection; does not use the library."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._connection: Any = None

    def rows(self, statement: str) -> Rows:
        if self._connection is None:
            self._connection = self._connect()
        return [tuple(row) for row in self._connection.execute(statement)]

    def has_tables(self) -> bool:
        return self.has_table("core_workflow_schema")

    def has_table(self, name: str) -> bool:
        where = (
            f"sqlite_master WHERE type = 'table' AND name = '{name}'"
            if self._is_sqlite
            else f"pg_tables WHERE schemaname = 'public' AND tablename = '{name}'"
        )
        return bool(self.rows(f"SELECT 1 FROM {where}"))

    def read(self) -> Stored:
        if not self.has_tables():
            return Stored({}, [], [])
        # In one snapshot: the server may still execute the last statement of a process that was killed.
        self._connection.execute("BEGIN" if self._is_sqlite else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            return Stored({row[0]: row[1:] for row in self.rows(_RUNS)}, self.rows(_STEPS), self.rows(_EVENTS))
        finally:
            self._connection.execute("COMMIT")

    def forget(self, runs: Sequence[str]) -> None:
        """Delete runs with all their rows."""
        for run in runs:
            keys = f"(SELECT id FROM core_workflow_runs WHERE run_id = '{run}')"
            for table in ("core_workflow_steps", "core_workflow_event_log"):
                self._connection.execute(f"DELETE FROM {table} WHERE run = {keys}")
            self._connection.execute(f"DELETE FROM core_workflow_runs WHERE run_id = '{run}'")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def _connect(self) -> Any:
        if self._is_sqlite:
            return sqlite3.connect(str(self._url.database), isolation_level=None)
        return psycopg.connect(
            self._url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
        )


def read_memory(store: MemoryRunStore) -> Stored:
    """The same for a store in memory, from its attributes."""
    stored = Stored({}, [], [])
    for run_id, kept in store._runs.items():
        run = kept.run
        stored.runs[run_id] = run.status.value, run.epoch, run.next_seq
        rows = sorted(kept.visits, key=lambda each: each.seq)
        stored.steps += [(run_id, each.path, each.seq, each.epoch, each.commit_id) for each in rows]
        events = merge_events(kept.events, kept.visits, 0, run.next_seq)
        stored.events += [(run_id, each.seq, str(each.event_type), each.path) for each in events]
    return stored


@dataclass
class History:
    """Collects the entries of the diary and checks each of them."""

    committed: dict[Where, str] = field(default_factory=dict)
    claims: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    raised: dict[str, int] = field(default_factory=dict)
    finished: list[Entry] = field(default_factory=list)
    executions: int = 0
    overlaps_allowed: bool = False

    def take(self, entries: Iterable[Entry]) -> None:
        """Check further entries.

        Raises:
            Violation: A step ran again after its commit; a visit was committed twice; two claims have the same epoch.
        """
        for entry in entries:
            getattr(self, f"_{entry['what']}")(entry)

    def _ran(self, entry: Entry) -> None:
        self.executions += 1
        where = entry["run"], entry["path"]
        if not self.overlaps_allowed:
            require(where not in self.committed, f"{where} ran again, attempt {entry['attempt']}, after its commit")

    def _acknowledged(self, entry: Entry) -> None:
        where = entry["run"], entry["path"]
        before = self.committed.setdefault(where, entry["commit"])
        require(before == entry["commit"], f"{where} was committed twice: {before}, {entry['commit']}")

    def _claimed(self, entry: Entry) -> None:
        claims = self.claims.setdefault(entry["run"], [])
        given = entry["epoch"], entry["next_seq"]
        require(all(epoch != given[0] for epoch, _ in claims), f"epoch {given[0]} of {entry['run']} was given twice")
        claims.append(given)

    def _ended(self, entry: Entry) -> None:
        self.ended[entry["run"]] = entry["status"]

    def _died(self, entry: Entry) -> None:
        self.deaths[entry["at"]] = self.deaths.get(entry["at"], 0) + 1

    def _raised(self, entry: Entry) -> None:
        self.raised[entry["error"]] = self.raised.get(entry["error"], 0) + 1

    def _finished(self, entry: Entry) -> None:
        self.finished.append(entry)

    def look(self, stored: Stored) -> None:
        """Compare the entries with the stored rows, and remember these rows as committed.

        Raises:
            Violation: An acknowledged row is not stored, numbers have gaps, or a superseded owner has committed.
        """
        check_numbers(stored)
        check_epochs(stored, self.claims)
        kept = {(run, path): commit for run, path, _, _, commit in stored.steps}
        for where, commit in self.committed.items():
            require(kept.get(where) == commit, f"{where} was acknowledged as {commit}, stored is {kept.get(where)}")
        for run in self.claims:
            require(run in stored.runs, f"run {run} was accepted and is not stored")
        for run, status in self.ended.items():
            if status == "completed":
                require(
                    stored.runs[run][0] == status,
                    f"run {run} was reported as {status} and is stored as {stored.runs[run][0]}",
                )
        self.committed.update(kept)

    def forget(self, runs: Iterable[str]) -> None:
        """Drop everything about these runs."""
        gone = set(runs)
        self.committed = {where: commit for where, commit in self.committed.items() if where[0] not in gone}
        for run in gone:
            self.claims.pop(run, None)
            self.ended.pop(run, None)
        self.finished.clear()


def check_numbers(stored: Stored) -> None:
    """Events of each run are numbered 1, 2, 3 … up to the run's own counter; each visit has its event."""
    numbers: dict[str, list[int]] = {run: [] for run in stored.runs}
    seen = set()
    for run, seq, _, path in stored.events:
        numbers[run].append(seq)
        seen.add((run, seq, path))
    for run, found in numbers.items():
        wanted = list(range(1, stored.runs[run][2]))
        require(sorted(found) == wanted, f"events of {run} are numbered {sorted(found)}, not 1 to {len(wanted)}")
    for run, path, seq, _, _ in stored.steps:
        # The event of a row that stores an item is that of the first step inside.
        has_own_event = not path.startswith("@") and not path.endswith("@item")
        event_path = path.partition("@")[0] if has_own_event else None
        require((run, seq, event_path) in seen or event_path is None, f"{path} of {run} has no event {seq}")
    paths = [(run, path) for run, path, *_ in stored.steps]
    require(len(paths) == len(set(paths)), "a visit is stored twice")


def check_epochs(stored: Stored, claims: dict[str, list[tuple[int, int]]]) -> None:
    """Rows below a claim's first number have an older epoch; the others have its epoch or a newer one."""
    for run, path, seq, epoch, _ in stored.steps:
        for claimed, next_seq in claims.get(run, ()):
            is_older = seq < next_seq
            require(
                (epoch < claimed) == is_older,
                f"{path} of {run} has number {seq} and epoch {epoch}; epoch {claimed} began with {next_seq}",
            )


def check_completed(stored: Stored, runs: Sequence[str]) -> None:
    """All runs have completed."""
    states = {run: stored.runs.get(run, ("missing", 0, 0))[0] for run in runs}
    stuck = {run: state for run, state in states.items() if state != "completed"}
    require(not stuck, f"runs are stuck: {stuck}")


def integrity(url: str) -> str:
    """Result of SQLite's own integrity check."""
    with closing(sqlite3.connect(str(make_url(url).database))) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
