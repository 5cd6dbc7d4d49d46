"""A wrapper of a store that injects failures and hanging calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import anyio

from spine_async._model.due import Backlog, Delivery, DueRequest, DueRun, NewMessage, Notice, OpenWait, RunState, Sweep
from spine_async._model.fork import ForkOutcome, NewFork
from spine_async._model.queue import Queue
from spine_async._model.run_change import Release, RunChange
from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.errors import DefinitionError, StoreUnavailableError
from spine_async.ports import (
    CallerTransactionStore,
    CommitOutcome,
    DeleteIf,
    DueRunStore,
    ForkStore,
    Listener,
    RunStore,
    ScheduleStore,
    forks_runs,
    keeps_due_runs,
    keeps_schedules,
    writes_within,
)

ResultT = TypeVar("ResultT")
Method: TypeAlias = Literal[
    "open",
    "create",
    "claim",
    "renew",
    "request_stop",
    "commit",
    "load",
    "visits",
    "runs",
    "events",
    "delete",
    "close",
    "past_visits",
    "visit_outlines",
    "item_states",
    "last_visit",
    "last_event",
    "count_runs",
    "workflow_names",
    "claim_queued",
    "claim_due",
    "sweep",
    "unlisted_queues",
    "release_run",
    "send",
    "notices",
    "states",
    "backlog",
    "open_waits",
    "listen",
    "create_within",
    "load_within",
    "send_within",
    "fork",
    "transact",
    "register_schedules",
    "schedules",
    "change_schedule",
]
_FORWARDED: tuple[Method, ...] = (
    *("past_visits", "visit_outlines", "item_states", "last_visit", "last_event"),
    *("count_runs", "workflow_names", "transact"),
)
"""Methods of capabilities that the wrapper has if the wrapped store has them."""
Moment: TypeAlias = Literal["before", "after"]


@dataclass(slots=True)
class Hang:
    """A handle to a call that hangs.

    Attributes:
        reached: Set by the call when it hangs.
        release: Set by the test to let the call continue.
    """

    reached: anyio.Event = field(default_factory=anyio.Event)
    release: anyio.Event = field(default_factory=anyio.Event)

    async def pass_through(self) -> None:
        """Set `reached` and wait for `release`."""
        self.reached.set()
        await self.release.wait()


class FaultInjectingStore:
    """Forwards calls to another store and injects planned faults.

    A fault *before* a call simulates a store that was not reached. A fault *after* a call simulates a lost answer, for
    instance a connection that breaks after COMMIT.

    Args:
        store: The wrapped store.

    Attributes:
        calls: Number of calls of each method.

    Example:
        >>> from spine_async.storage import MemoryRunStore
        >>> store = FaultInjectingStore(MemoryRunStore())
        >>> store.fail("commit", call=3, moment="after")
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._faults: dict[tuple[str, int, Moment], Callable[[], Awaitable[None]]] = {}
        self.calls: Counter[str] = Counter()

    @property
    def commits_out_of_process(self) -> bool:
        return getattr(self._store, "commits_out_of_process", False)

    def fail(
        self, method: Method, *, call: int = 1, moment: Moment = "before", error: BaseException | None = None
    ) -> None:
        """Make a call raise an exception.

        Args:
            method: Method of the store.
            call: Which call of the method fails; 1 is the first call after this object was created.
            moment: Whether to raise before or after the wrapped store is called.
            error: Exception to raise; None means `StoreUnavailableError`.
        """
        planned = error or StoreUnavailableError(f"injected fault {moment} call {call} of {method}")

        async def fault() -> None:
            raise planned

        self._faults[method, call, moment] = fault

    def hang(self, method: Method, *, call: int = 1, moment: Moment = "before") -> Hang:
        """Make a call hang until the returned `Hang` is released; for the arguments see `fail`."""
        hang = Hang()
        self._faults[method, call, moment] = hang.pass_through
        return hang

    async def open(self) -> None:
        return await self._call("open", self._store.open)

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        return await self._call("create", lambda: self._store.create(runs))

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
        return await self._call(
            "claim",
            lambda: self._store.claim(run_id, owner, event, ttl=ttl, over_epoch=over_epoch, unless_ended=unless_ended),
        )

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        return await self._call("renew", lambda: self._store.renew(claims, ttl))

    async def request_stop(self, run_id: str, reason: str) -> bool:
        return await self._call("request_stop", lambda: self._store.request_stop(run_id, reason))

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        return await self._call("commit", lambda: self._store.commit(changes))

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
        return await self._call(
            "claim_queued",
            lambda: self._due_runs.claim_queued(
                run_id, owner, event, limits=limits, ttl=ttl, over_epoch=over_epoch, unless_ended=unless_ended
            ),
        )

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        return await self._call("claim_due", lambda: self._due_runs.claim_due(request))

    async def sweep(
        self, gone: Collection[str] = (), lapsed: Collection[str] = (), spared: Collection[str] = ()
    ) -> Sweep:
        return await self._call("sweep", lambda: self._due_runs.sweep(gone, lapsed, spared))

    async def unlisted_queues(self, listed: Collection[str]) -> list[str]:
        return await self._call("unlisted_queues", lambda: self._due_runs.unlisted_queues(listed))

    async def release_run(self, claim: Claim, release: Release) -> bool:
        return await self._call("release_run", lambda: self._due_runs.release_run(claim, release))

    async def send(self, message: NewMessage) -> Delivery:
        return await self._call("send", lambda: self._due_runs.send(message))

    async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
        return await self._call("notices", lambda: self._due_runs.notices(claims))

    async def states(self, run_ids: Sequence[str]) -> list[RunState]:
        return await self._call("states", lambda: self._due_runs.states(run_ids))

    async def backlog(self, limit: int) -> Backlog:
        return await self._call("backlog", lambda: self._due_runs.backlog(limit))

    async def open_waits(self, run_ids: Sequence[str]) -> list[OpenWait]:
        return await self._call("open_waits", lambda: self._due_runs.open_waits(run_ids))

    async def listen(self, on_change: Callable[[], None]) -> Listener:
        return await self._call("listen", lambda: self._due_runs.listen(on_change))

    async def create_within(self, connection: object, runs: Sequence[NewRun]) -> list[Claim | None]:
        return await self._call("create_within", lambda: self._callers.create_within(connection, runs))

    async def load_within(self, connection: object, run_id: str) -> StoredRun | None:
        return await self._call("load_within", lambda: self._callers.load_within(connection, run_id))

    async def send_within(self, connection: object, message: NewMessage) -> Delivery:
        return await self._call("send_within", lambda: self._callers.send_within(connection, message))

    async def fork(self, new: NewFork) -> ForkOutcome:
        return await self._call("fork", lambda: self._forks.fork(new))

    async def register_schedules(self, schedules: Sequence[NewSchedule]) -> None:
        return await self._call("register_schedules", lambda: self._schedules.register_schedules(schedules))

    async def schedules(self, names: Collection[str] | None = None) -> list[StoredSchedule]:
        return await self._call("schedules", lambda: self._schedules.schedules(names))

    async def change_schedule(self, change: ScheduleChange) -> bool:
        return await self._call("change_schedule", lambda: self._schedules.change_schedule(change))

    @property
    def _schedules(self) -> ScheduleStore:
        if not keeps_schedules(self._store):
            raise DefinitionError("the wrapped store keeps no schedules")
        return self._store

    @property
    def _forks(self) -> ForkStore:
        if not forks_runs(self._store):
            raise DefinitionError("the wrapped store cannot fork runs")
        return self._store

    def __getattr__(self, name: str) -> Any:
        """Methods of the capabilities for reads and transactions, if the wrapped store has them."""
        if name not in {*_FORWARDED, "blocks_commits"} or not hasattr(self._store, name):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        found = getattr(self._store, name)
        return partial(self._forward, name, found) if name in _FORWARDED else found

    async def _forward(self, name: Method, method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return await self._call(name, lambda: method(*arguments))

    @property
    def _due_runs(self) -> DueRunStore:
        if not keeps_due_runs(self._store):
            raise DefinitionError("the wrapped store keeps no due runs")
        return self._store

    @property
    def _callers(self) -> CallerTransactionStore:
        if not writes_within(self._store):
            raise DefinitionError("the wrapped store cannot write in a transaction of its caller")
        return self._store

    async def _call(self, method: Method, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        self.calls[method] += 1
        number = self.calls[method]
        await self._inject(method, number, "before")
        result = await work()
        await self._inject(method, number, "after")
        return result

    async def _inject(self, method: Method, number: int, moment: Moment) -> None:
        fault = self._faults.get((method, number, moment))
        if fault is not None:
            await fault()
