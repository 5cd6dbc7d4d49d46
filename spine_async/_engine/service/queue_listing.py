"""Lists the queues of a worker in the store, and warns of queues on which no worker works."""

from __future__ import annotations

import logging
from collections.abc import Collection

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.tasks import run_shielded
from spine_async.errors import StoreError

_FIRST_LISTING = 1.0  # seconds from the start until the queues are listed
_LIST_EVERY = 20.0  # seconds; a queue counts as listed for a minute

_log = logging.getLogger("spine_async")


class QueueListing:
    """Records regularly that a worker works on its queues, and warns once of each queue on which no worker works.

    Args:
        runtime: What all runs share.
        queues: Names of the queues of the worker.
    """

    def __init__(self, runtime: Runtime, queues: Collection[str]) -> None:
        self._runtime = runtime
        self._queues = queues
        self._due_mono = 0.0
        self._unlisted: set[str] = set()
        self._warned_of: set[str] = set()

    def begin(self, now_mono: float) -> None:
        """Plan the first listing; workers that start at the same time have listed their queues by then."""
        self._due_mono = now_mono + _FIRST_LISTING

    async def list_if_due(self, now_mono: float) -> None:
        """List the queues if it is time; errors of the store are logged."""
        if now_mono < self._due_mono:
            return
        self._due_mono = now_mono + _LIST_EVERY
        try:
            found = set(await run_shielded(self._runtime.due_runs.unlisted_queues(self._queues), "spine_async queues"))
        except StoreError as exc:
            _log.debug("queues were not listed; it will be retried: %s", exc)
        except Exception:  # noqa: BLE001 - a worker that ends would execute no further run
            _log.exception("queues were not listed; it will be retried")
        else:
            self._warn_of(found)

    def _warn_of(self, found: set[str]) -> None:
        """Warn of the queues that were found twice in a row, because the worker of a queue may just have started."""
        for queue in sorted(found & self._unlisted - self._warned_of):
            self._warned_of.add(queue)
            _log.warning(
                "runs wait in queue %r, which no working runner has listed for a minute; start one with "
                "WorkflowRunner(queues=[%r])",
                queue,
                queue,
            )
        self._unlisted = found
        self._warned_of &= found
