"""Executes a workflow in several lives, of which all but the last one are interrupted at one of their writes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio

from spine_async import RunStatus, SpineError, Workflow, WorkflowResult, WorkflowRunner, WorkflowRunnerConfig
from spine_async._model.run_claim import Claim
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import StoredRun
from spine_async._model.visit_filter import VisitFilter
from spine_async._model.visit_row import VisitRow
from spine_async.errors import LeaseLostError, StoreUnavailableError
from spine_async.ports import RunStore
from tests.chaos.fragile_store import FragileStore, How, Interrupt
from tests.chaos.grown import VALUE, compensated_names, definitions, diary, expected_signals

RUN_ID = "grown"
HALT, UNDO = "halt", "undo"
_ENDS_IN = 120.0  # seconds
_SIGNALS = 9  # of each name: as many as a run may take
_CONFIG = WorkflowRunnerConfig(
    trace_enabled=False, drain_timeout=0, park_after=0, poll_interval=0.1, lease_ttl=60, max_claims=1000
)
_log = logging.getLogger("spine_async")


@dataclass
class World:
    """A workflow, and the store in which its runs live.

    Attributes:
        strikes: Interrupts that have happened.
    """

    workflow: Workflow
    store: RunStore
    strikes: list[How] = field(default_factory=list)

    async def live_through(self, interrupts: Sequence[Interrupt]) -> tuple[WorkflowResult, int]:
        """The result after all lives, and the number of writes of the last one."""
        with anyio.fail_after(_ENDS_IN):
            for each in interrupts:
                await self._live(each)
            result, writes = await self._live(None)
            if result is not None and result.stop_reason in {HALT, "cancelled"}:  # asked for in a life before
                result, writes = await self._live(None)
        assert result is not None
        return result, writes

    async def _live(self, interrupt: Interrupt | None) -> tuple[WorkflowResult | None, int]:
        ended, before = await self._ended_visits(), diary.calls.copy()
        diary.calls.clear()
        send, receive = anyio.create_memory_object_stream[str](1_000_000)
        fragile = FragileStore(self.store, interrupt, send.send_nowait)
        was_disabled, _log.disabled = _log.disabled, interrupt is not None
        with send, receive:
            for run in await self._runs():
                send.send_nowait(run.run_id)
            try:
                result = await _Life(self.workflow, fragile, receive).result(await self._status())
            finally:
                _log.disabled = was_disabled
                await self.store.close()
        if interrupt is not None and fragile.has_struck:
            self.strikes.append(interrupt.how)
        if fragile.is_dead:
            await self._release()
        repeated = ended & set(diary.calls)
        assert not repeated, f"called again although their ends were stored: {sorted(repeated)}"
        diary.calls.update(before)
        return result, fragile.writes

    async def _release(self) -> None:
        """Take the runs from the owner that has died, as a worker does that sees that a process is gone."""
        for run in await self._runs():
            if run.owner is not None and not run.status.is_final:
                await self.store.renew([Claim(run.run_id, run.key, run.epoch, run.next_seq)], 0.0)
        await self.store.close()

    async def _runs(self) -> list[StoredRun]:
        return await self.store.runs(RunFilter())

    async def _status(self) -> RunStatus | None:
        stored = await self.store.load(RUN_ID)
        return stored.status if stored is not None else None

    async def _rows(self, run: StoredRun) -> list[VisitRow]:
        return await self.store.visits(run.run_id, VisitFilter())

    async def _ended_visits(self) -> set[str]:
        """The completed visits, as `run/path`."""
        return {
            f"{run.run_id}/{row.path}"
            for run in await self._runs()
            for row in await self._rows(run)
            if row.status == "completed"
        }

    async def check_compensations(self, *, exactly: bool) -> None:
        """Each run has compensated completed visits only, each once; `exactly`: all of them, if it had to."""
        by_name = definitions(self.workflow)
        for run in await self._runs():
            rows, names = await self._rows(run), compensated_names(by_name[run.workflow_name])
            assert len({row.path for row in rows}) == len(rows), f"paths of {run.run_id} are not unique"
            completed = [row.path for row in rows if row.status == "completed" and row.step_name in names]
            undone = [row.path.removesuffix("~compensate") for row in rows if row.path.endswith("~compensate")]
            assert len(undone) == len(set(undone)), f"compensated twice in {run.run_id}: {undone}"
            assert set(undone) <= set(completed), f"compensated in {run.run_id} without having completed: {undone}"
            must = run.status is RunStatus.FAILED or (run.status is RunStatus.STOPPED and run.stop_reason == UNDO)
            if exactly:
                assert sorted(undone) == (sorted(completed) if must else []), f"compensations of {run.run_id}"


class _Life:
    """One entered runner that executes the run, and is asked for something when the interrupt is reached."""

    def __init__(self, workflow: Workflow, store: FragileStore, created: anyio.abc.ObjectReceiveStream[str]) -> None:
        self._workflow = workflow
        self._store = store
        self._created = created
        self._how = store.interrupt.how if store.interrupt is not None else None
        self._caller = anyio.CancelScope()
        self._result: WorkflowResult | None = None
        self._over = anyio.Event()
        """Set when the run has ended or the interrupt is reached."""

    async def result(self, status: RunStatus | None) -> WorkflowResult | None:
        """The result of the run, whose status was this one before; None if this life ended before the run."""
        runner = WorkflowRunner(store=self._store, config=_CONFIG, workflows=[self._workflow])
        async with anyio.create_task_group() as tasks:
            with suppress(StoreUnavailableError):
                async with runner:
                    tasks.start_soon(self._send_signals, runner)
                    tasks.start_soon(self._call, runner, status)
                    tasks.start_soon(self._watch)
                    await self._over.wait()
                    await self._interrupt(runner)
            tasks.cancel_scope.cancel()
        return self._result

    async def _call(self, runner: WorkflowRunner, status: RunStatus | None) -> None:
        try:
            with self._caller:
                self._result = await self._answer(runner, status)
                if self._how is None:  # children that were stopped with their parent
                    for run in await runner.list_runs():
                        await runner.result(run.run_id)
        finally:
            self._over.set()

    async def _answer(self, runner: WorkflowRunner, status: RunStatus | None) -> WorkflowResult | None:
        """The answer to a call of `execute`, `start` or `resume`; of `result` if the first one has failed."""
        try:
            if status is None and self._how == "cancel":
                return await runner.execute(self._workflow, run_id=RUN_ID)
            if status is RunStatus.STOPPED and (await runner.get_run(RUN_ID)).stop_reason != UNDO:
                return await runner.resume(RUN_ID)
            if status is None:
                await runner.start(self._workflow, run_id=RUN_ID)
        except (StoreUnavailableError, LeaseLostError):
            if not self._fails:
                raise
        while not self._store.is_dead:
            try:
                return await runner.result(RUN_ID)
            except StoreUnavailableError:
                if not self._fails:
                    raise
        return None

    @property
    def _fails(self) -> bool:
        """Whether errors of the store are expected in this life."""
        interrupt = self._store.interrupt
        return self._store.is_dead or (interrupt is not None and interrupt.how in {"failed write", "lost answer"})

    async def _watch(self) -> None:
        await self._store.reached.wait()
        self._over.set()
        await self._store.died.wait()
        self._over.set()

    async def _interrupt(self, runner: WorkflowRunner) -> None:
        """Ask the runner for what the interrupt wants; a shutdown follows in any case."""
        if self._store.is_dead or not self._store.reached.is_set():
            return
        self._over = anyio.Event()
        with suppress(StoreUnavailableError):
            if self._how in {"stop", "compensating stop"}:
                undoes = self._how == "compensating stop"
                await runner.stop(RUN_ID, UNDO if undoes else HALT, compensate=undoes)
                await self._over.wait()
            elif self._how == "cancel":
                self._caller.cancel()
                await self._over.wait()

    async def _send_signals(self, runner: WorkflowRunner) -> None:
        """Send each run all signals that it may wait for, as soon as it is stored."""
        names = {name: expected_signals(each) for name, each in definitions(self._workflow).items()}
        async for run_id in self._created:
            with suppress(SpineError):
                for name in names[(await runner.get_run(run_id)).workflow_name]:
                    for number in range(_SIGNALS):
                        await runner.signal(run_id, name, VALUE, idempotency_key=f"{name} {number}")
