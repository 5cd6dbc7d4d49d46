"""Failpoints, and a store with a failpoint before and after each call."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from spine_async._model.due import Backlog, Delivery, DueRequest, DueRun, NewMessage, Notice, OpenWait, RunState, Sweep
from spine_async._model.run_change import Release, RunChange
from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.ports import (
    CommitOutcome,
    DeleteIf,
    DueRunStore,
    Listener,
    RunStore,
    StepTransaction,
    executes_transactions,
    keeps_due_runs,
)
from tests.chaos.diary import Diary

ResultT = TypeVar("ResultT")
_READS = frozenset(
    {"past_visits", "visit_outlines", "item_states", "last_visit", "last_event", "count_runs", "workflow_names"}
)
"""Methods of capabilities that the watched store has if the wrapped store has them."""


class Points:
    """Counts the failpoints that are reached; calls `act` at the chosen one.

    Args:
        chosen: Number of the point, from 1; 0 for none.
        act: Function to call there, with the point's name.
    """

    def __init__(self, chosen: int, act: Callable[[str], None]) -> None:
        self.chosen = chosen
        self.names: list[str] = []
        self._act = act

    def hit(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self.chosen:
            self._act(name)

    async def reach(self, name: str) -> None:
        self.hit(name)


def die(diary: Diary) -> Callable[[str], None]:
    """A function that kills this process by SIGKILL."""

    def act(name: str) -> None:
        diary.write("died", "", at=name)
        os.kill(os.getpid(), signal.SIGKILL)

    return act


class _WatchedTransaction:
    """Reaches a failpoint before and after each call of a transaction of a step, and keeps its change."""

    def __init__(self, transaction: StepTransaction, points: Points) -> None:
        self._transaction = transaction
        self._points = points
        self.change: RunChange | None = None

    def execute(self, connection: Any) -> BaseException | None:
        self._points.hit("execute before")
        error = self._transaction.execute(connection)
        self._points.hit("execute after")
        return error

    def reject(self, error: BaseException, *, is_transient: bool) -> None:
        self._transaction.reject(error, is_transient=is_transient)

    async def complete(self) -> RunChange | None:
        self._points.hit("complete before")
        self.change = await self._transaction.complete()
        self._points.hit("complete after")
        return self.change


class WatchedStore:
    """Reaches a failpoint before and after each call of another store; writes acknowledged rows to the diary.

    Diary: `claimed` (epoch and next number), `acknowledged` (a visit with its epoch and commit id),
    `ended`.
    """

    def __init__(self, store: RunStore, diary: Diary, points: Points) -> None:
        self._store = store
        self._diary = diary
        self._points = points

    @property
    def _due_runs(self) -> DueRunStore:
        assert keeps_due_runs(self._store)
        return self._store

    @property
    def commits_out_of_process(self) -> bool:
        return getattr(self._store, "commits_out_of_process", False)

    async def open(self) -> None:
        return await self._call("open", self._store.open)

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        claims = await self._call("create", lambda: self._store.create(runs))
        for claim in claims:
            self._note_claim(claim)
        return claims

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
        answer = await self._call(
            "claim",
            lambda: self._store.claim(run_id, owner, event, ttl=ttl, over_epoch=over_epoch, unless_ended=unless_ended),
        )
        self._note_claim(answer)
        return answer

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        claimed = await self._call("claim_due", lambda: self._due_runs.claim_due(request))
        for each in claimed:
            self._note_claim(each.claim)
        return claimed

    async def claim_queued(
        self, run_id: str, owner: str, event: EventRow | None, **asked: Any
    ) -> Claim | Busy | NoRoom | None:
        answer = await self._call("claim", lambda: self._due_runs.claim_queued(run_id, owner, event, **asked))
        self._note_claim(None if isinstance(answer, NoRoom) else answer)
        return answer

    async def unlisted_queues(self, listed: Collection[str]) -> list[str]:
        return await self._due_runs.unlisted_queues(listed)  # called by time, as `notices`

    async def sweep(
        self, gone: Collection[str] = (), lapsed: Collection[str] = (), spared: Collection[str] = ()
    ) -> Sweep:
        return await self._call("sweep", lambda: self._due_runs.sweep(gone, lapsed, spared))

    async def release_run(self, claim: Claim, release: Release) -> bool:
        return await self._call("release_run", lambda: self._due_runs.release_run(claim, release))

    async def send(self, message: NewMessage) -> Delivery:
        return await self._call("send", lambda: self._due_runs.send(message))

    async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
        return await self._due_runs.notices(claims)  # called by time, so a failpoint here would shift the others

    async def states(self, run_ids: Sequence[str]) -> list[RunState]:
        return await self._due_runs.states(run_ids)  # the same

    async def backlog(self, limit: int) -> Backlog:
        return await self._due_runs.backlog(limit)  # the same

    async def open_waits(self, run_ids: Sequence[str]) -> list[OpenWait]:
        return await self._due_runs.open_waits(run_ids)  # the same

    async def listen(self, on_change: Callable[[], None]) -> Listener:
        return await self._due_runs.listen(on_change)

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        return await self._call("renew", lambda: self._store.renew(claims, ttl))

    async def request_stop(self, run_id: str, reason: str) -> bool:
        return await self._call("request_stop", lambda: self._store.request_stop(run_id, reason))

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        self._points.hit("commit before")
        outcomes = await self._store.commit(changes)
        for change, outcome in zip(changes, outcomes, strict=True):
            if outcome is CommitOutcome.COMMITTED:
                self._note_commit(change)
        self._points.hit("commit after")
        return outcomes

    @property
    def blocks_commits(self) -> bool:
        assert executes_transactions(self._store)
        return self._store.blocks_commits

    async def transact(self, transaction: StepTransaction, seconds: float) -> CommitOutcome | None:
        store, watched = self._store, _WatchedTransaction(transaction, self._points)
        assert executes_transactions(store)
        self._points.hit("transact before")
        outcome = await store.transact(watched, seconds)
        if outcome is CommitOutcome.COMMITTED:
            assert watched.change is not None
            self._note_commit(watched.change)
        self._points.hit("transact after")
        return outcome

    async def load(self, run_id: str) -> StoredRun | None:
        return await self._call("load", lambda: self._store.load(run_id))

    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        return await self._call("visits", lambda: self._store.visits(run_id, chosen))

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        return await self._call("runs", lambda: self._store.runs(chosen))

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        return await self._call("events", lambda: self._store.events(run_id, after, limit))

    async def delete(self, run_ids: Sequence[str], condition: DeleteIf = DeleteIf.STORED) -> list[str]:
        return await self._call("delete", lambda: self._store.delete(run_ids, condition))

    async def close(self) -> None:
        return await self._call("close", self._store.close)

    def __getattr__(self, name: str) -> Any:
        """Methods of the capabilities for reads, if the wrapped store has them."""
        if name not in _READS or not hasattr(self._store, name):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        found = getattr(self._store, name)
        return lambda *arguments: self._call(name, lambda: found(*arguments))

    async def _call(self, name: str, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        self._points.hit(f"{name} before")
        result = await work()
        self._points.hit(f"{name} after")
        return result

    def _note_claim(self, answer: Claim | Busy | None) -> None:
        if isinstance(answer, Claim):
            self._diary.write("claimed", answer.run_id, epoch=answer.epoch, next_seq=answer.next_seq)

    def _note_commit(self, change: RunChange) -> None:
        for visit in change.visits:
            self._diary.write(
                "acknowledged", change.run_id, path=visit.path, epoch=change.epoch, commit=change.commit_id
            )
        if change.end is not None:
            self._diary.write("ended", change.run_id, status=change.end.status.value, epoch=change.epoch)
