"""Waits for runs that this runner does not execute."""

from __future__ import annotations

import logging
from collections.abc import Collection

import anyio
from anyio import to_thread

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.owner import is_gone
from spine_async._engine.tasks import Future, Task, new_future, resolve, run_shielded, spawn
from spine_async._model.due import RunState
from spine_async.errors import StoreError

_MIN_INTERVAL = 0.005  # seconds between two looks at the store

_log = logging.getLogger("spine_async")


class Waits:
    """Looks at the states of all awaited runs in one call of the store, after changes and every `poll_interval`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiters: dict[Future[None], str] = {}
        self._task: Task[None] | None = None

    async def until_changed(self, run_id: str) -> None:
        """Wait until the run has ended, is gone, or could be claimed by this runner.

        The first look at the store happens after the next change or `poll_interval`, so that a caller who cannot
        claim the run does not try again at once.
        """
        waiter: Future[None] = new_future()
        self._waiters[waiter] = run_id
        if self._task is None or self._task.done():
            self._task = spawn(self._watch(), "spine_async waits")
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)

    async def _watch(self) -> None:
        runtime = self._runtime
        async with runtime.changes.listening():
            while self._waiters:
                await runtime.changes.wait(runtime.config.poll_interval)
                try:
                    await self._look()
                except StoreError as exc:
                    _log.warning("awaited runs could not be read; it will be retried: %s", exc)
                await anyio.sleep(_MIN_INTERVAL)

    async def _look(self) -> None:
        run_ids = list(dict.fromkeys(self._waiters.values()))
        if not run_ids:
            return
        states = await run_shielded(self._runtime.due_runs.states(run_ids), "spine_async states")
        held = [state for state in states if state.is_leased and not state.status.is_final]
        owners = {state.owner for state in held if state.owner is not None and state.owner != self._runtime.owner}
        gone = await to_thread.run_sync(_gone, owners) if owners else set()
        unchanged = {state.run_id for state in states if not _has_changed(state, gone)}
        resolve([waiter for waiter, run_id in self._waiters.items() if run_id not in unchanged])


def _has_changed(state: RunState, gone: Collection[str]) -> bool:
    """Whether the run has ended or could be claimed."""
    if state.status.is_final or state.is_due:
        return True
    return state.owner is not None and (not state.is_leased or state.owner in gone)


def _gone(owners: Collection[str]) -> set[str]:
    return {owner for owner in owners if is_gone(owner)}
