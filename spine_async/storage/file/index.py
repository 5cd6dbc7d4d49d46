"""The index of a file store: the runs that are stored, so that a listing opens no folders of ended runs.

It is a file of JSON lines. The last line of a run counts: `open` before anything may change the run, `ended` with the
run without its documents, `gone` after it was removed. The logs of the runs decide; a process that dies between a log
and the index leaves a line `open`, which only costs a read of the folder. Lines do not wait for the disk. So after a
restart of the host the index is rebuilt from the folders.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from spine_async._model.run_row import StoredRun
from spine_async.storage.boot_clock import boot_time
from spine_async.storage.file.lock import locked
from spine_async.storage.file.log import Log
from spine_async.storage.form import from_form, to_form
from spine_async.storage.run_selection import without_documents

INDEX = "index.jsonl"
_HEAD_BYTES = 64
"""Enough of the first line to tell two indexes apart."""
_REWRITE_FACTOR, _REWRITE_LINES = 4, 1000

_log = logging.getLogger("spine_async")


@dataclass(slots=True)
class Entry:
    """The entry of a run in the index.

    Attributes:
        ended: The run without its documents, or None if its folder must be looked into.
    """

    created_at: datetime
    ended: StoredRun | None = None


class RunIndex:
    """The index with a copy in memory, which is brought up to date before each use.

    Args:
        base: Folder of the store; an absolute path without symbolic links.
        timeout: Longest wait for another process, in seconds.
        scan: Reads the runs from all folders.
    """

    def __init__(self, base: Path, timeout: float, scan: Callable[[], Iterable[StoredRun]]) -> None:
        self._file = base / INDEX
        self._timeout = timeout
        self._scan = scan
        self._head = b""
        self._entries: dict[str, Entry] = {}
        self._boot: str | None = None
        self._end = self._lines = 0

    def entries(self) -> dict[str, Entry]:
        """The stored runs by id; changed by later calls."""
        if self._file.parent.is_dir():
            self._write(())
        return self._entries

    def opened(self, runs: Iterable[tuple[str, datetime]]) -> None:
        """Note, before it happens, that runs may be created or changed."""
        self._write([{"run": run_id, "open": at.isoformat()} for run_id, at in runs])

    def ended(self, run: StoredRun) -> None:
        """Note that a run has ended."""
        self._write([_ended(run)])

    def gone(self, run_id: str) -> None:
        """Note that a run was removed."""
        self._write([{"run": run_id, "gone": True}])

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        while not self._is_written(lines):
            pass  # the index was rebuilt, so its file is another one

    def _is_written(self, lines: Iterable[dict[str, Any]]) -> bool:
        with locked(self._file, is_created=True, timeout=self._timeout) as descriptor:
            assert descriptor is not None  # noqa: S101 (narrows the type: the file was created)
            log = self._up_to_date(descriptor)
            if log is None:
                return False
            for line in lines:
                log.append(line, is_synced=False)
                self._apply(line)
            self._end = log.end
            return True

    def _up_to_date(self, descriptor: int) -> Log | None:
        """The log of the index after it was read; None if it had to be rebuilt."""
        head = Log(descriptor).head(_HEAD_BYTES)
        if head != self._head:
            self._forget()
            self._head = head
        log = Log(descriptor, self._end)
        if log.is_longer:
            try:
                for line in log.read():
                    self._apply(line)
            except (ValueError, TypeError, LookupError, AttributeError):
                _log.warning("the index %s cannot be read; it is rebuilt", self._file)
                self._boot = None
        self._end = log.end
        if self._boot != boot_time().boot:
            self._replace([_ended(run) if run.status.is_final else _open(run) for run in self._scan()])
            return None
        if self._lines > _REWRITE_LINES + _REWRITE_FACTOR * len(self._entries):
            self._replace([_line(run_id, entry) for run_id, entry in self._entries.items()])
            return None
        return log

    def _apply(self, line: dict[str, Any]) -> None:
        self._lines += 1
        if "boot" in line:
            self._boot = str(line["boot"])
            return
        run_id = str(line["run"])
        if "gone" in line:
            self._entries.pop(run_id, None)
        elif "ended" in line:
            run = from_form(StoredRun, line["ended"])
            self._entry(run_id, run.created_at).ended = run
        else:
            self._entry(run_id, datetime.fromisoformat(line["open"])).ended = None

    def _entry(self, run_id: str, created_at: datetime) -> Entry:
        found = self._entries.get(run_id)
        if found is None or found.created_at != created_at:
            found = self._entries[run_id] = Entry(created_at)
        return found

    def _replace(self, lines: Iterable[dict[str, Any]]) -> None:
        """Rebuild the index. The caller holds the lock of the old one."""
        descriptor, name = tempfile.mkstemp(prefix=f".{INDEX}.", dir=self._file.parent)
        try:
            log = Log(descriptor)
            log.append({"boot": boot_time().boot, "token": secrets.token_hex(8)}, is_synced=False)
            for line in lines:
                log.append(line, is_synced=False)
        finally:
            os.close(descriptor)
        Path(name).replace(self._file)
        self._forget()

    def _forget(self) -> None:
        self._entries, self._boot = {}, None
        self._head, self._end, self._lines = b"", 0, 0


def _open(run: StoredRun) -> dict[str, Any]:
    return {"run": run.run_id, "open": run.created_at.isoformat()}


def _ended(run: StoredRun) -> dict[str, Any]:
    return {"run": run.run_id, "ended": to_form(without_documents(run))}


def _line(run_id: str, entry: Entry) -> dict[str, Any]:
    return _ended(entry.ended) if entry.ended is not None else {"run": run_id, "open": entry.created_at.isoformat()}
