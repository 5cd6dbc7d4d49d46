"""What a PostgreSQL server does during a measurement: processor time, write-ahead log, and waits of its backends."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

_INTERVAL = 0.05  # seconds between two samples

_ACTIVE = """
SELECT coalesce(wait_event_type || ':' || wait_event, 'CPU') FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()
"""
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_POSITION = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class PostgresLoad:
    """A context manager that samples a server while its block is executed.

    Args:
        dsn: libpq URL of the database.
    """

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._waits: Counter[str] = Counter()
        self._samples = 0
        self._connections = 0.0

    def __enter__(self) -> Self:
        self._wal, self._cpu = self._number(_POSITION), self._cpu_seconds()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._wal, self._cpu = self._number(_POSITION) - self._wal, self._cpu_seconds() - self._cpu
        self._connection.close()

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all processes of the server; 0 if it is not a process of this host."""
        return self._cpu

    def figures(self, units: int) -> Mapping[str, float]:
        """The figures of the block.

        Returns:
            `wal_bytes` per unit; `connections`, the most at a time; `active`, the average number of backends that
            execute a statement; and `wait:…` for each wait event, in percent of these. `wait:CPU` is no wait.
        """
        active = self._waits.total()
        return {
            "wal_bytes": self._wal / units,
            "connections": self._connections,
            "active": active / max(1, self._samples),
            **{f"wait:{event}": 100 * count / active for event, count in self._waits.most_common()},
        }

    def _sample(self) -> None:
        while not self._end.wait(_INTERVAL):
            self._waits.update(str(row[0]) for row in self._connection.execute(_ACTIVE).fetchall())
            self._connections = max(self._connections, self._number(_CONNECTIONS))
            self._samples += 1

    def _number(self, query: str) -> float:
        row = self._connection.execute(query).fetchone()
        return float(row[0]) if row else 0.0

    def _cpu_seconds(self) -> float:
        backend = Path(f"/proc/{self._connection.info.backend_pid}/stat")
        if not backend.exists():
            return 0.0
        server = _fields(backend)[1]
        return sum(_cpu(each) for each in _all_fields() if each[1] == server)


def _fields(stat: Path) -> list[str]:
    """The fields of a file /proc/…/stat after the name of the program. The first ones are the state and the parent."""
    return stat.read_text(encoding="utf-8").rpartition(")")[2].split()


def _all_fields() -> list[list[str]]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found.append(_fields(stat))
        except OSError:  # it has ended
            continue
    return found


def _cpu(fields: list[str]) -> float:
    return (int(fields[11]) + int(fields[12])) / _TICK
