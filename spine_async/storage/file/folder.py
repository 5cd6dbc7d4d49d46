"""The folder of one run: its log, and the lease of its owner."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Busy, Claim, Renewal
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.visit_row import EventRow
from spine_async.ports import CommitOutcome
from spine_async.storage.boot_clock import BootTime, boot_time
from spine_async.storage.file.keys import new_key
from spine_async.storage.file.lock import FILE_MODE, locked
from spine_async.storage.file.log import Log
from spine_async.storage.file.replica import Replica
from spine_async.storage.memory import MemoryRunStore
from spine_async.storage.private_folder import FOLDER_MODE

AnswerT = TypeVar("AnswerT")

LOG = "log.jsonl"
_LEASE = "lease.json"
_LEASE_SIZE = 128
"""Bytes of the file of the lease, which is overwritten in place by one call."""
_HEAD_BYTES = 64
"""Enough of the first line, which contains a random key, to tell two logs apart."""
_REMOVED = ".removed-"


class RunFolder:
    """One run on the disk, with a copy in memory that is brought up to date before each use.

    Args:
        base: Folder of the store; an absolute path without symbolic links.
        run_id: The run.
        timeout: Longest wait for another process, in seconds.
        is_synced: Whether a write waits for the disk.

    Attributes:
        is_held_here: Whether the last claim of the run was made with this object, and the run has not ended since.
    """

    def __init__(self, base: Path, run_id: str, *, timeout: float, is_synced: bool) -> None:
        self._base = base
        self._path = base / folder_name(run_id)
        self._run_id = run_id
        self._timeout = timeout
        self._is_synced = is_synced
        self._replica = Replica(run_id)
        self._end = 0
        self._head = b""
        self.is_held_here = False

    def create(self, new: NewRun) -> Claim | None:
        """Create the run as `RunStore.create` does; the folder of the store must be synced afterwards."""
        self._path.mkdir(mode=FOLDER_MODE, exist_ok=True)
        while True:
            with self._opened(is_created=True) as log:
                if log is not None:
                    claim, entry = self._replica.create(new, new_key())
                    if entry is not None:
                        self._append(log, entry)
                        self._sync_folder(self._path)
                    self.is_held_here = claim is not None and claim.epoch > 0
                    return claim
            self._path.mkdir(mode=FOLDER_MODE, exist_ok=True)  # it was removed meanwhile

    def claim(
        self, owner: str, event: EventRow | None, ttl: float, over_epoch: int | None, *, unless_ended: bool
    ) -> Claim | Busy | None:
        """Claim the run as `RunStore.claim` does."""
        with self._opened() as log:
            if log is None:
                return None
            self._read_lease()
            answer, entry = self._replica.claim(owner, event, ttl, over_epoch, unless_ended=unless_ended)
            self._append(log, entry)
            self.is_held_here = isinstance(answer, Claim)
            return answer

    def commit(self, change: RunChange) -> CommitOutcome:
        """Commit the change as `RunStore.commit` does."""
        with self._opened() as log:
            if log is None:
                return CommitOutcome.FENCED
            outcome, entry = self._replica.commit(change)
            self._append(log, entry)
            is_given_up = change.end is not None or change.release is not None
            self.is_held_here = self.is_held_here and outcome is CommitOutcome.COMMITTED and not is_given_up
            return outcome

    def renew(self, claim: Claim, ttl: float) -> Renewal:
        """Renew the lease as `RunStore.renew` does; without waiting for the disk, as no lease outlives the boot."""
        with self._opened() as log:
            if log is None:
                return Renewal(is_held=False)
            renewal, entry = self._replica.renew(claim, ttl)
            self._append(log, entry)
            if renewal.is_held and ttl > 0:
                self._write_lease(claim.epoch, ttl)
            self.is_held_here = self.is_held_here and renewal.is_held and ttl > 0
            return renewal

    def request_stop(self, reason: str) -> bool:
        """Ask the owner to stop the run."""
        with self._opened() as log:
            if log is None:
                return False
            is_under_way, entry = self._replica.request_stop(reason)
            self._append(log, entry)
            return is_under_way

    @contextmanager
    def reading(self) -> Iterator[MemoryRunStore]:
        """The run in a store of its own, for calls that change nothing; empty if the run is not stored."""
        with self._opened() as log:
            if log is not None:
                self._read_lease()
            yield self._replica.store

    def load(self) -> StoredRun | None:
        """The run."""
        with self.reading():
            return self._replica.run

    def delete(self, *, only_ended: bool) -> bool:
        """Remove the run; the folder of the store must be synced afterwards."""
        with self._opened() as log:
            run = self._replica.run
            if log is None or run is None or (only_ended and not run.status.is_final):
                return False
            removed = self._base / f"{_REMOVED}{self._path.name}-{secrets.token_hex(4)}"
            self._path.rename(removed)
            self._forget()
        shutil.rmtree(removed, ignore_errors=True)
        return True

    @contextmanager
    def _opened(self, *, is_created: bool = False) -> Iterator[Log | None]:
        """The locked log, with the replica brought up to date; None if there is no run.

        After an exception the replica is rebuilt, because it may contain a call that is not in the log.
        """
        with locked(self._path / LOG, is_created=is_created, timeout=self._timeout) as descriptor:
            if descriptor is None:
                self._forget()
                yield None
                return
            try:
                yield self._up_to_date(descriptor)
            except BaseException:
                self._forget()
                raise

    def _up_to_date(self, descriptor: int) -> Log:
        head = Log(descriptor).head(_HEAD_BYTES)
        if head != self._head:  # another log: the run was removed, and one with its id was created
            self._forget()
            self._head = head
        log = Log(descriptor, self._end)
        if log.is_longer:
            with CorruptionGuard(self._run_id):
                for entry in log.read():
                    self._replica.repeat(entry)
        self._end = log.end
        return log

    def _append(self, log: Log, entry: dict[str, object] | None) -> None:
        if entry is not None:
            log.append(entry, is_synced=self._is_synced)
            self._end = log.end
            if len(self._head) < _HEAD_BYTES:
                self._head = log.head(_HEAD_BYTES)

    def _forget(self) -> None:
        self._replica, self._end, self._head, self.is_held_here = Replica(self._run_id), 0, b"", False

    def _read_lease(self) -> None:
        if self.is_held_here:
            return
        with suppress(OSError, ValueError, KeyError, TypeError):  # without a readable lease, that of the claim counts
            form = json.loads((self._path / _LEASE).read_bytes())
            until = BootTime(str(form["boot"]), float(form["until"]))
            self._replica.extend_lease(int(form["epoch"]), until, float(form["ttl"]))

    def _write_lease(self, epoch: int, ttl: float) -> None:
        now = boot_time()
        form = {"epoch": epoch, "boot": now.boot, "until": round(now.seconds + ttl, 3), "ttl": ttl}
        data = json.dumps(form).ljust(_LEASE_SIZE).encode("ascii")
        descriptor = os.open(self._path / _LEASE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            os.pwrite(descriptor, data, 0)
        finally:
            os.close(descriptor)

    def _sync_folder(self, folder: Path) -> None:
        if self._is_synced:
            sync_folder(folder)


def folder_name(run_id: str) -> str:
    """The name of the folder of a run: a hash, because an id may have any characters and any length of a path."""
    return hashlib.sha256(run_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def sync_folder(folder: Path) -> None:
    """Wait until the names in the folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
