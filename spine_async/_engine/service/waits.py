"""Waits for runs that this runner does not execute."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass, field

import anyio
from anyio import to_thread

from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.pace import Pace
from spine_async._engine.start.owner import is_gone
from spine_async._engine.tasks import (
    CANCELLATION,
    EventLoop,
    Future,
    Task,
    current_task,
    end_task,
    new_future,
    resolve,
    run_shielded,
    running_loop,
    spawn,
)
from spine_async._model.due import RunState
from spine_async.errors import StoreError

CLAIM_PAUSE = 0.2
"""Share of `poll_interval` between two attempts to claim a run."""

_LOOKS_PER_SECOND = 200.0  # in the long run
_LOOKS_AT_ONCE = 4.0  # after a quiet time: a run that is picked up and ends soon causes two or three

_log = logging.getLogger("spine_async")


@dataclass(slots=True, eq=False)
class _Waiter:
    """One call that waits.

    Attributes:
        run_id: The run.
        claims_after_mono: From when it is woken by a run that could be claimed; infinity for a call that only waits for
            the end.
        future: Done when the run has changed.
    """

    run_id: str
    claims_after_mono: float
    future: Future[None] = field(default_factory=new_future)


class Waits:
    """Looks at the states of all awaited runs in one call of the store, after changes and every `poll_interval`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiters: set[_Waiter] = set()
        self._task: Task[None] | None = None
        self._loop: EventLoop | None = None
        runtime.before_close.append(self._end_unused)

    async def until_ended(self, run_id: str) -> None:
        """Wait until the run has ended or is not stored."""
        await self._wait(_Waiter(run_id, math.inf))

    async def until_claimable(self, run_id: str) -> None:
        """Wait until the run has ended, is not stored, or could be claimed by this runner.

        A run that could be claimed wakes the caller only after a while, because the caller has just failed to claim it.
        """
        now_mono = self._runtime.clock.monotonic()
        await self._wait(_Waiter(run_id, now_mono + self._runtime.config.poll_interval * CLAIM_PAUSE))

    async def _wait(self, waiter: _Waiter) -> None:
        self._forget_earlier_loop()
        self._waiters.add(waiter)
        if self._task is None or self._task.done():
            self._task = spawn(self._watch(), "spine_async waits")
        else:
            self._runtime.changes.notify(Change.STATE)
        try:
            await waiter.future
        except CANCELLATION:
            self._waiters.discard(waiter)
            await self._end_unused()
            raise
        finally:
            self._waiters.discard(waiter)

    async def _end_unused(self) -> None:
        """End the looks at the store if nobody waits any more: the store may be closed then.

        While the store stays open they end by themselves, after `poll_interval` at the latest. So calls that wait one
        after the other share a listener.
        """
        self._forget_earlier_loop()
        task = self._task
        if task is not None and not self._waiters:
            self._task = None
            await end_task(task)

    def _forget_earlier_loop(self) -> None:
        """Drop what belongs to another event loop; it has ended with its loop."""
        if (loop := running_loop()) is not self._loop:
            self._loop, self._task = loop, None
            self._waiters.clear()

    async def _watch(self) -> None:
        runtime = self._runtime
        pace = Pace(_LOOKS_PER_SECOND, _LOOKS_AT_ONCE, runtime.clock.monotonic())
        try:
            async with runtime.changes.listening():
                while self._waiters:
                    seen = runtime.changes.count(Change.STATE)
                    try:
                        await self._look()
                    except StoreError as exc:
                        _log.warning("awaited runs could not be read; it will be retried: %s", exc)
                    except Exception:  # noqa: BLE001 - the calls would wait for ever
                        _log.exception("awaited runs could not be read; it will be retried")
                    if self._waiters:
                        await runtime.changes.wait(Change.STATE, runtime.config.poll_interval, seen)
                        await anyio.sleep(pace.delay(runtime.clock.monotonic()))
                self._task = None  # a call that begins to wait from here on starts another one
        finally:
            if self._task is not None and self._task is current_task():
                self._task = None

    async def _look(self) -> None:
        run_ids = list(dict.fromkeys(each.run_id for each in self._waiters))
        states = await run_shielded(self._runtime.due_runs.states(run_ids), "spine_async states")
        held = [state for state in states if state.is_leased and not state.status.is_final]
        owners = {state.owner for state in held if state.owner is not None and state.owner != self._runtime.owner}
        gone = await to_thread.run_sync(_gone, owners) if owners else set()
        unended = {state.run_id for state in states if not state.status.is_final}
        claimable = {state.run_id for state in states if _is_claimable(state, gone)}
        now_mono = self._runtime.clock.monotonic()
        for waiter in self._waiters:
            may_claim = waiter.run_id in claimable and now_mono >= waiter.claims_after_mono
            if waiter.run_id in run_ids and (waiter.run_id not in unended or may_claim):
                resolve([waiter.future])


def _is_claimable(state: RunState, gone: Collection[str]) -> bool:
    """Whether another runner may claim the run."""
    if state.is_due:
        return True
    return state.owner is not None and (not state.is_leased or state.owner in gone)


def _gone(owners: Collection[str]) -> set[str]:
    return {owner for owner in owners if is_gone(owner)}
