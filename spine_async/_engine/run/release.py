"""Releases claimed runs that are not executed or committed from here, also if the store fails for a while."""

from __future__ import annotations

import anyio

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.tasks import Future, Task, mark_retrieved, new_future, resolve, spawn, wait_any
from spine_async._model.run_change import Release
from spine_async._model.run_claim import Claim
from spine_async.errors import StoreError

_WITHIN = 1.0  # seconds to wait for the store; then the release continues in the background
_RETRY_AFTER = 1.0  # seconds between two attempts

REFUSED_FOR = 60.0
"""Seconds for which a run is not claimed that does not fit the definition of its workflow here."""


async def give_up(runtime: Runtime, claim: Claim, release: Release) -> None:
    """As `begin_release`; waits for a moment, so that the run is usually released when this returns."""
    with anyio.move_on_after(_WITHIN, shield=True):
        await wait_any(*begin_release(runtime, claim, release))


def begin_release(runtime: Runtime, claim: Claim, release: Release) -> tuple[Task[None], Future[None]]:
    """Release a claimed run that is not executed or committed from here, so that another owner may claim it.

    If the store fails or does not answer, this is repeated in the background until the runner closes the store.

    Returns:
        The task, and a future that is done when its first attempt has failed.
    """
    attempted: Future[None] = new_future()
    work = _release_when_reachable(runtime, claim, release, attempted)
    task = spawn(work, f"spine_async release of {claim.run_id}")
    runtime.releases.add(task)
    task.add_done_callback(runtime.releases.discard)
    task.add_done_callback(mark_retrieved)
    return task, attempted


async def _release_when_reachable(runtime: Runtime, claim: Claim, release: Release, attempted: Future[None]) -> None:
    """Release the run; sets `attempted` when the first attempt has failed."""
    while True:
        try:
            await runtime.due_runs.release_run(claim, release)
        except StoreError:
            resolve([attempted])
            await anyio.sleep(_RETRY_AFTER)
        else:
            return
