"""A run store that stores nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from spine_async._model.due import Backlog, Delivery, DueRequest, DueRun, NewMessage, Notice, OpenWait, RunState, Sweep
from spine_async._model.queue import Queue
from spine_async._model.run_change import Release, RunChange
from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.ports import CommitOutcome, DeleteIf


class NullRunStore:
    """Accepts every write and stores nothing; used for dry runs and for runs without checkpoints."""

    location = "nothing: this runner writes no checkpoints"

    async def open(self) -> None:
        return None

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        return [Claim(run.run_id, key=0, epoch=int(run.is_held), next_seq=run.next_seq) for run in runs]

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
        return None

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        return [Renewal(is_held=True) for _ in claims]

    async def request_stop(self, run_id: str, reason: str) -> bool:
        return False

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        return [CommitOutcome.COMMITTED] * len(changes)

    async def load(self, run_id: str) -> StoredRun | None:
        return None

    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        return []

    async def last_visit(self, run_id: str, step: str) -> VisitRow | None:
        return None

    async def last_event(self, run_id: str, event_type: str, path: str) -> EventRow | None:
        return None

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        return []

    async def count_runs(self, chosen: RunFilter) -> dict[RunStatus, int]:
        return {}

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        return []

    async def delete(self, run_ids: Sequence[str], condition: DeleteIf = DeleteIf.STORED) -> list[str]:
        return []

    async def workflow_names(self) -> list[str]:
        return []

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
        return None

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        return []

    async def sweep(
        self, gone: Collection[str] = (), lapsed: Collection[str] = (), spared: Collection[str] = ()
    ) -> Sweep:
        return Sweep({}, None)

    async def unlisted_queues(self, listed: Collection[str]) -> list[str]:
        return []

    async def release_run(self, claim: Claim, release: Release) -> bool:
        return True

    async def send(self, message: NewMessage) -> Delivery:
        return Delivery.NOT_FOUND

    async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
        return []

    async def states(self, run_ids: Sequence[str]) -> list[RunState]:
        return []

    async def backlog(self, limit: int) -> Backlog:
        return Backlog()

    async def open_waits(self, run_ids: Sequence[str]) -> list[OpenWait]:
        return []

    async def listen(self, on_change: Callable[[], None]) -> NullRunStore:
        return self

    async def close(self) -> None:
        return None
