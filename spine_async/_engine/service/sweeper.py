"""Makes due runs ready to be claimed, also the runs of owners whose processes are gone."""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from typing import TypeVar

from anyio import to_thread

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.start.owner import is_alive, is_gone
from spine_async._engine.tasks import run_shielded
from spine_async._model.due import Sweep
from spine_async.errors import StoreError

AnswerT = TypeVar("AnswerT")


class Sweeper:
    """Sweeps the store for a worker.

    Args:
        runtime: What all runs share.
        active_runs: The runs that this runner executes.

    Attributes:
        last_mono: When the last sweep began, on the monotonic clock.
    """

    def __init__(self, runtime: Runtime, active_runs: ActiveRuns) -> None:
        self._runtime = runtime
        self._active_runs = active_runs
        self.last_mono = 0.0

    async def sweep(self) -> Sweep:
        """Make due runs ready."""
        due_runs = self._runtime.due_runs
        self.last_mono = self._runtime.clock.monotonic()
        sweep = await ask_store(self._runtime, due_runs.sweep(), "spine_async sweep")
        gone, lapsed = await self._judge(sweep)
        if gone or lapsed:
            is_own = self._runtime.owner in lapsed
            spared = self._active_runs.run_ids if is_own else set[str]()
            sweep = await ask_store(self._runtime, due_runs.sweep(gone, lapsed, spared), "spine_async sweep")
        return sweep

    async def _judge(self, sweep: Sweep) -> tuple[set[str], set[str]]:
        """The owners whose processes are gone, and those whose ended leases nobody will renew.

        An owner that is alive on this host renews its lease or releases its runs. After an outage of the store, every
        owner has one `lease_ttl` to renew. This runner itself is included: a run that it does not execute may be held
        in its name, because the answer to a claim was lost or the run could not be released.
        """
        runtime, own = self._runtime, self._runtime.owner
        others = {owner: has_ended for owner, has_ended in sweep.owners.items() if owner != own or has_ended}
        if not others:
            return set(), set()
        gone, alive = await to_thread.run_sync(_observed, others)
        if not runtime.reachability.has_returned_for(runtime.config.lease_ttl, runtime.clock.monotonic()):
            return gone, set()
        return gone, {owner for owner, has_ended in others.items() if has_ended} - gone - alive


async def ask_store(runtime: Runtime, call: Coroutine[object, object, AnswerT], name: str) -> AnswerT:
    """The answer of the store to a call; notes whether the store could be reached."""
    sent_mono = runtime.clock.monotonic()
    try:
        answer = await run_shielded(call, name)
    except StoreError:
        runtime.reachability.failed()
        raise
    runtime.reachability.answered(sent_mono, runtime.clock.monotonic())
    return answer


def _observed(owners: Collection[str]) -> tuple[set[str], set[str]]:
    """The owners whose processes are gone, and those that are provably alive."""
    gone = {owner for owner in owners if is_gone(owner)}
    return gone, {owner for owner in owners if owner not in gone and is_alive(owner)}
