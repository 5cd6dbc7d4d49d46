"""The file store: runs in a folder, for one host and any number of its processes."""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread

from spine_async._model.durability import Durability
from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Busy, Claim, Renewal
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.errors import CorruptRecordError, StoreError, StoreUnavailableError
from spine_async.ports import CommitOutcome, DeleteIf
from spine_async.storage.file.folder import RunFolder, sync_folder
from spine_async.storage.file.index import RunIndex
from spine_async.storage.file.listing import count, names, run_ids_on_disk, select
from spine_async.storage.file.replica import finished
from spine_async.storage.memory import MemoryRunStore
from spine_async.storage.private_folder import make_private_folder

AnswerT = TypeVar("AnswerT")

_MOST_IDLE = 64
"""Runs that are kept in memory although no owner in this process holds them."""
_THREADS = 8
"""Writes that wait for the disk at the same time."""


class FileRunStore:
    """Stores each run in a folder of its own, with a log of JSON lines that a person can read.

    It supports runs and their recovery, but no queues, no signals and no transactions. The folder must be on a disk of
    the host; a network file system is not supported.

    Args:
        folder: Folder of the store; it is created with mode 0700 when the first run is stored.
        timeout: Longest wait for another process that writes to the same run, in seconds.
        durability: `full` waits for the disk at each write; `process` does not, so that a power failure may undo
            commits.

    Raises:
        StoreError: The platform has no POSIX locks.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, timeout: float = 10.0, durability: Durability = "full"
    ) -> None:
        if sys.platform == "win32":
            raise StoreError(
                "the file store needs POSIX locks, which Windows does not have; use checkpoint_storage='database'"
            )
        self._given = Path(folder)
        self._timeout = timeout
        self._is_synced = durability == "full"
        self._folders: OrderedDict[str, RunFolder] = OrderedDict()
        self._guard = threading.Lock()
        self._opened: tuple[Path, RunIndex] | None = None
        self._threads: anyio.CapacityLimiter | None = None

    @property
    def location(self) -> str:
        """The folder, for messages."""
        return f"the folder {self._given}"

    async def open(self) -> None:
        return None

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        return await self._run(self._create, runs)

    async def claim(
        self,
        run_id: str,
        owner: str,
        event: EventRow | None,
        *,
        ttl: float,
        over_epoch: int | None = None,
        unless_ended: bool = False,
    ) -> Claim | Busy | None:
        return await self._run(lambda: self._claim(run_id, owner, event, ttl, over_epoch, unless_ended=unless_ended))

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        return await self._run(lambda: [self._folder(each.run_id).renew(each, ttl) for each in claims])

    async def request_stop(self, run_id: str, reason: str) -> bool:
        return await self._run(lambda: self._folder(run_id).request_stop(reason))

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        """Each change is a write of its own, and reaches the disk on its own; several threads write at a time."""
        if len(changes) == 1:
            return [await self._run(self._commit, changes[0])]
        outcomes = [CommitOutcome.FENCED] * len(changes)

        async def commit(first: int) -> None:
            for number in range(first, len(changes), _THREADS):
                outcomes[number] = await self._run(self._commit, changes[number])

        async with anyio.create_task_group() as tasks:
            for first in range(min(_THREADS, len(changes))):
                tasks.start_soon(commit, first)
        return outcomes

    async def load(self, run_id: str) -> StoredRun | None:
        return await self._run(lambda: self._folder(run_id).load())

    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        return await self._read(run_id, lambda run: finished(run.visits(run_id, chosen)))

    async def last_visit(self, run_id: str, step: str) -> VisitRow | None:
        return await self._read(run_id, lambda run: finished(run.last_visit(run_id, step)))

    async def last_event(self, run_id: str, event_type: str, path: str) -> EventRow | None:
        return await self._read(run_id, lambda run: finished(run.last_event(run_id, event_type, path)))

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        return await self._run(lambda: select(self._index.entries(), chosen, self._load_listed))

    async def count_runs(self, chosen: RunFilter) -> dict[RunStatus, int]:
        return await self._run(lambda: count(self._index.entries(), chosen, self._load_listed))

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        return await self._read(run_id, lambda run: finished(run.events(run_id, after, limit)))

    async def delete(self, run_ids: Sequence[str], condition: DeleteIf = DeleteIf.STORED) -> list[str]:
        return await self._run(lambda: [each for each in dict.fromkeys(run_ids) if self._delete(each, condition)])

    async def workflow_names(self) -> list[str]:
        chosen = RunFilter(skips_unreadable=True)
        return await self._run(lambda: names(self._index.entries(), chosen, self._load_listed))

    async def close(self) -> None:
        with self._guard:
            self._folders.clear()
            self._opened = None
        self._threads = None

    def _create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        make_private_folder(self._base)
        self._index.opened((run.run_id, run.created_at) for run in runs if not self._is_stored(run.run_id))
        claims, seen = list[Claim | None](), set[str]()
        for run in runs:
            claims.append(self._folder(run.run_id).create(run) if run.run_id not in seen else None)
            seen.add(run.run_id)
        self._sync()
        return claims

    def _is_stored(self, run_id: str) -> bool:
        return self._folder(run_id).load() is not None

    def _claim(
        self, run_id: str, owner: str, event: EventRow | None, ttl: float, over_epoch: int | None, *, unless_ended: bool
    ) -> Claim | Busy | None:
        folder = self._folder(run_id)
        run = folder.load()
        if run is not None and run.status.is_final:
            self._index.opened([(run_id, run.created_at)])
        return folder.claim(owner, event, ttl, over_epoch, unless_ended=unless_ended)

    def _commit(self, change: RunChange) -> CommitOutcome:
        folder = self._folder(change.run_id)
        outcome = folder.commit(change)
        is_ended = change.end is not None or (change.release is not None and change.release.restored is not None)
        if is_ended and outcome is CommitOutcome.COMMITTED:
            self._note_end(folder.load())
        return outcome

    def _note_end(self, run: StoredRun | None) -> None:
        if run is not None and run.status.is_final:
            self._index.ended(run)

    def _delete(self, run_id: str, condition: DeleteIf) -> bool:
        folder, only_ended = self._folder(run_id), condition is not DeleteIf.STORED
        run = folder.load()
        if run is None or (only_ended and not run.status.is_final):
            return False
        if condition is DeleteIf.UNUSED and self._has_use(run):
            return False
        self._index.opened([(run_id, run.created_at)])
        is_deleted = folder.delete(only_ended=only_ended)
        if is_deleted:
            self._sync()
            self._index.gone(run_id)
        return is_deleted

    def _has_use(self, run: StoredRun) -> bool:
        """Whether its parent is stored and has not ended."""
        parent = self._folder(run.parent_run_id).load() if run.parent_run_id is not None else None
        return parent is not None and not parent.status.is_final

    def _load_listed(self, run_id: str) -> StoredRun | None:
        """A run of a listing whose folder must be looked into; repairs the index."""
        run = self._folder(run_id).load()
        if run is None:
            return None
        self._note_end(run)
        return run

    def _scan(self) -> Iterator[StoredRun]:
        """The runs of all folders; those that cannot be read are left out, and named when they are used."""
        for run_id in run_ids_on_disk(self._base, self._timeout):
            try:
                run = self._folder(run_id).load()
            except (CorruptRecordError, StoreError, OSError):
                continue
            if run is not None:
                yield run

    @property
    def _base(self) -> Path:
        return self._places[0]

    @property
    def _index(self) -> RunIndex:
        return self._places[1]

    @property
    def _places(self) -> tuple[Path, RunIndex]:
        """The folder without symbolic links, and the index. Reads the disk at the first use."""
        with self._guard:
            if self._opened is None:
                base = Path(os.path.realpath(self._given))
                self._opened = base, RunIndex(base, self._timeout, self._scan)
            return self._opened

    def _folder(self, run_id: str) -> RunFolder:
        base = self._base
        with self._guard:
            found = self._folders.get(run_id)
            if found is None:
                found = RunFolder(base, run_id, timeout=self._timeout, is_synced=self._is_synced)
                self._folders[run_id] = found
            self._folders.move_to_end(run_id)
            while len(self._folders) > _MOST_IDLE and self._drop_idle():
                pass
            return found

    def _drop_idle(self) -> bool:
        """Forget the run that was not used for the longest time, unless it is held here."""
        for run_id, folder in self._folders.items():
            if not folder.is_held_here:
                del self._folders[run_id]
                return True
        return False

    def _sync(self) -> None:
        if self._is_synced:
            sync_folder(self._base)

    async def _read(self, run_id: str, read: Callable[[MemoryRunStore], AnswerT]) -> AnswerT:
        def read_here() -> AnswerT:
            with self._folder(run_id).reading() as run:
                return read(run)

        return await self._run(read_here)

    async def _run(self, job: Callable[..., AnswerT], *args: object) -> AnswerT:
        """Run a job on a thread that may wait for the disk. A cancelled caller waits until the job has ended."""
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(_THREADS)
        try:
            return await to_thread.run_sync(job, *args, limiter=self._threads)
        except OSError as exc:
            raise StoreUnavailableError(f"{self.location} cannot be read or written: {exc.strerror or exc}") from exc
