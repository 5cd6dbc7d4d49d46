"""Due runs on a store that keeps none: such a store still supports recovery."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from spine_async._model.due import Backlog, Delivery, DueRequest, DueRun, NewMessage, Notice, OpenWait, RunState, Sweep
from spine_async._model.queue import Queue
from spine_async._model.run_change import Release
from spine_async._model.run_claim import Busy, Claim, NoRoom
from spine_async._model.run_filter import RunCursor, RunFilter
from spine_async._model.run_row import StoredRun
from spine_async._model.visit_row import EventRow
from spine_async.ports import Listener, NoListener, RunStore

_PAGE = 500


class PlainDueRuns:
    """The port of due runs by means of the port of runs. It keeps no times, queues and messages.

    Args:
        store: The store.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._free: dict[str, StoredRun] = {}
        self._gone: Collection[str] = ()
        self._page_after: RunCursor | None = None
        self._next_after: RunCursor | None = None

    async def claim_queued(
        self,
        run_id: str,
        owner: str,
        event: EventRow | None,
        *,
        limits: Queue,
        ttl: float,
        over_epoch: int | None = None,
        unless_ended: bool = False,
    ) -> Claim | Busy | NoRoom | None:
        return await self._store.claim(run_id, owner, event, ttl=ttl, over_epoch=over_epoch, unless_ended=unless_ended)

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        claimed: list[DueRun] = []
        for run in list(self._free.values()):
            is_known = run.workflow_version <= request.workflows.get(run.workflow_name, -1)
            if is_known and len(claimed) < request.limit:
                del self._free[run.run_id]
                over = run.epoch if run.owner in self._gone else None  # another owner may have renewed its lease
                whole = await self._store.load(run.run_id)
                answer = await self._store.claim(
                    run.run_id, request.owner, None, ttl=request.ttl, over_epoch=over, unless_ended=True
                )
                if whole is not None and isinstance(answer, Claim):
                    claimed.append(DueRun(whole, answer))
        return claimed

    async def sweep(
        self, gone: Collection[str] = (), lapsed: Collection[str] = (), spared: Collection[str] = ()
    ) -> Sweep:
        """Look at a page of the runs under way: at the next one, or at the last one again if its owners are given."""
        owners: dict[str, bool] = {}
        self._free.clear()
        self._gone = gone
        if not gone and not lapsed:
            self._page_after = self._next_after
        for run in await self._page():
            is_lapsed = run.owner in lapsed and not run.is_leased and run.run_id not in spared
            is_free = run.owner is None or run.owner in gone or is_lapsed
            if is_free:
                self._free[run.run_id] = run
            elif run.owner is not None:
                owners[run.owner] = owners.get(run.owner, False) or not run.is_leased
        return Sweep(owners, None)

    async def _page(self) -> list[StoredRun]:
        """The runs under way after the cursor, without their documents; a run that cannot be read harms no other."""
        chosen = RunFilter(
            is_under_way=True, limit=_PAGE, cursor=self._page_after, with_documents=False, skips_unreadable=True
        )
        page = await self._store.runs(chosen)
        self._next_after = RunCursor(page[-1].created_at, page[-1].key) if len(page) == _PAGE else None
        return page

    async def unlisted_queues(self, listed: Collection[str]) -> list[str]:
        return []

    async def release_run(self, claim: Claim, release: Release) -> bool:
        (renewal,) = await self._store.renew([claim], 0.0)
        return renewal.is_held

    async def send(self, message: NewMessage) -> Delivery:
        return Delivery.NOT_FOUND

    async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
        return []

    async def states(self, run_ids: Sequence[str]) -> list[RunState]:
        runs = [await self._store.load(run_id) for run_id in dict.fromkeys(run_ids)]
        return [
            RunState(run.run_id, run.status, run.epoch, run.owner, run.is_leased, run.owner is None, run.next_seq)
            for run in runs
            if run is not None
        ]

    async def backlog(self, limit: int) -> Backlog:
        return Backlog()

    async def open_waits(self, run_ids: Sequence[str]) -> list[OpenWait]:
        return []

    async def listen(self, on_change: Callable[[], None]) -> Listener:
        return NoListener()
