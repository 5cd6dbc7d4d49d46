"""Stores that break the protocol on purpose, each in one way. The checks must detect each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio.lowlevel

from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Busy, Claim, Renewal
from spine_async._model.run_row import NewRun
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.ports import CommitOutcome
from spine_async.storage import MemoryRunStore
from spine_async.storage.packing import PackedVisits

COMMITTED = CommitOutcome.COMMITTED


class NoFence(MemoryRunStore):
    def _commit(self, change: RunChange) -> CommitOutcome:
        self._runs[change.run_id].add(change)
        return COMMITTED


class EpochNotChecked(MemoryRunStore):
    def _commit(self, change: RunChange) -> CommitOutcome:
        kept = self._runs[change.run_id]
        return super()._commit(replace(change, epoch=kept.run.epoch))


class NumberNotChecked(MemoryRunStore):
    def _commit(self, change: RunChange) -> CommitOutcome:
        return super()._commit(replace(change, expected_seq=self._runs[change.run_id].run.next_seq))


class StatusNotChecked(MemoryRunStore):
    def _commit(self, change: RunChange) -> CommitOutcome:
        kept = self._runs[change.run_id]
        if (kept.run.epoch, kept.run.next_seq) != (change.epoch, change.expected_seq):
            return CommitOutcome.FENCED
        kept.add(change)
        return COMMITTED


class KeyNotChecked(MemoryRunStore):
    def _commit(self, change: RunChange) -> CommitOutcome:
        return super()._commit(replace(change, key=self._runs[change.run_id].key))


class FenceOutsideTheTransaction(MemoryRunStore):
    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        outcomes = []
        for change in changes:
            run = self._runs[change.run_id].run
            is_mine = (run.epoch, run.next_seq) == (change.epoch, change.expected_seq) and not run.status.is_final
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            if is_mine:
                self._runs[change.run_id].add(change)
            outcomes.append(COMMITTED if is_mine else CommitOutcome.FENCED)
        return outcomes


class AcknowledgedBeforeTheCommit(MemoryRunStore):
    """Writes a change only at the next commit; the change is lost if the worker dies before."""

    def __init__(self) -> None:
        super().__init__()
        self._late: list[RunChange] = []

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        late, self._late = self._late, list(changes)
        for change in late:
            super()._commit(change)
        return [COMMITTED for _ in changes]


class EventsInTheirOwnTransaction(MemoryRunStore):
    """Writes the events of a commit with the next commit."""

    def __init__(self) -> None:
        super().__init__()
        self._late: list[tuple[str, Sequence[EventRow]]] = []

    def _commit(self, change: RunChange) -> CommitOutcome:
        for run_id, events in self._late:
            if run_id in self._runs:
                self._runs[run_id].events.extend(events)
        self._late = [(change.run_id, change.events)] if change.end is None else []
        return super()._commit(replace(change, events=() if change.end is None else change.events))


class InsertOrReplace(MemoryRunStore):
    """A visit replaces the stored visit of the same path."""

    def _commit(self, change: RunChange) -> CommitOutcome:
        kept = self._runs[change.run_id]
        paths = {row.path for row in change.visits}
        kept.visits = PackedVisits([row for row in kept.visits if row.path not in paths])
        kept.add(replace(change, next_seq=max(change.next_seq, kept.run.next_seq)))
        return COMMITTED


class LeaseIgnoredByClaim(MemoryRunStore):
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
        kept = self._runs.get(run_id)
        return await super().claim(
            run_id, owner, event, ttl=ttl, over_epoch=kept.run.epoch if kept else None, unless_ended=unless_ended
        )


class EpochNotRaisedByClaim(MemoryRunStore):
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
        answer = await super().claim(run_id, owner, event, ttl=ttl, over_epoch=over_epoch, unless_ended=unless_ended)
        if isinstance(answer, Claim):
            kept = self._runs[run_id]
            kept.stored, kept.change = replace(kept.run, epoch=kept.run.epoch - 1), None
            answer.epoch -= 1
        return answer


class CompletedRunsAreClaimed(MemoryRunStore):
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
        kept = self._runs.get(run_id)
        if kept is None:
            return None
        kept.stored, kept.change = replace(kept.run, epoch=kept.run.epoch + 1, owner=owner), None
        return Claim(run_id, kept.key, kept.run.epoch, kept.run.next_seq)


class RenewIgnoresTheEpoch(MemoryRunStore):
    def _renew(self, claim: Claim, ttl: float) -> Renewal:
        return super()._renew(replace(claim, epoch=self._runs[claim.run_id].run.epoch), ttl)


class StopOutlivesTheClaim(MemoryRunStore):
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
        asked = self._runs[run_id].stop_requested if run_id in self._runs else None
        answer = await super().claim(run_id, owner, event, ttl=ttl, over_epoch=over_epoch, unless_ended=unless_ended)
        if run_id in self._runs:
            self._runs[run_id].stop_requested = asked
        return answer


class LostVisits(MemoryRunStore):
    def _commit(self, change: RunChange) -> CommitOutcome:
        return super()._commit(replace(change, visits=change.visits[:-1]))


class ItemsAreNotLoaded(MemoryRunStore):
    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        return [] if chosen.inside is not None else await super().visits(run_id, chosen)


class LastVisitIsNotLoaded(MemoryRunStore):
    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        return (await super().visits(run_id, chosen))[:-1]


class FencedIsReportedAsCommitted(MemoryRunStore):
    def _commit(self, change: RunChange) -> CommitOutcome:
        super()._commit(change)
        return COMMITTED


class CommittedTwice(MemoryRunStore):
    """Retries a commit without a check whether the first attempt was written."""

    def _commit(self, change: RunChange) -> CommitOutcome:
        outcome = super()._commit(change)
        kept = self._runs[change.run_id]
        kept.events.extend(replace(each) for each in change.events)
        return outcome


class CreateOverwrites(MemoryRunStore):
    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        for run in runs:
            self._runs.pop(run.run_id, None)
        return await super().create(runs)


class NumbersWithGaps(MemoryRunStore):
    def _commit(self, change: RunChange) -> CommitOutcome:
        outcome = super()._commit(change)
        kept = self._runs[change.run_id]
        kept.stored, kept.change = replace(kept.run, next_seq=kept.run.next_seq + (change.end is not None)), None
        return outcome


BROKEN: tuple[type[MemoryRunStore], ...] = (
    NoFence,
    EpochNotChecked,
    NumberNotChecked,
    StatusNotChecked,
    KeyNotChecked,
    FenceOutsideTheTransaction,
    AcknowledgedBeforeTheCommit,
    EventsInTheirOwnTransaction,
    InsertOrReplace,
    LeaseIgnoredByClaim,
    EpochNotRaisedByClaim,
    CompletedRunsAreClaimed,
    RenewIgnoresTheEpoch,
    StopOutlivesTheClaim,
    LostVisits,
    ItemsAreNotLoaded,
    LastVisitIsNotLoaded,
    FencedIsReportedAsCommitted,
    CommittedTwice,
    CreateOverwrites,
    NumbersWithGaps,
)
