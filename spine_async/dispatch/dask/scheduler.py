"""A plugin of the Dask scheduler, which knows the tasks of pipelines that have not ended, and the number of workers.

- A task whose worker is lost fails at once, and the retry policy of its step decides. By default Dask would execute it
  on three other workers, one after the other, and nobody would know.
- A run that is resumed finds the task that an earlier owner of the run has left behind, and waits for it.
- Clients are notified when the last worker is gone, and when there is one again.

Source: `docs/decisions/0038-dispatchers-and-dask.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

PLUGIN = "spine_async-1"
"""Name of the plugin; another version of it has another number."""

TOPIC = PLUGIN
"""Topic of the events for clients: progress of tasks, and numbers of workers."""

FIND = "spine_async_find_1"
"""Name of the call that finds the task of a visit."""

_PREFIX = "spine_async:"


def task_key(pipeline: str, visit: str, token: str) -> str:
    """The key of a task. Dask groups keys by the part before the first hyphen.

    Args:
        pipeline: Name of the pipeline.
        visit: Digest of the visit of the step, 32 characters.
        token: Random hexadecimal digits.
    """
    return f"{_PREFIX}{pipeline.replace('-', '_')}-{visit}-{token}"


class PipelineTasks(SchedulerPlugin):
    """The tasks of pipelines that are waiting or running, by visit."""

    idempotent = True

    def __init__(self) -> None:
        self._running: dict[str, str] = {}
        self._changes = 0

    async def start(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        scheduler.handlers[FIND] = self._find

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Note the beginning and the end of a task."""
        if not (isinstance(key, str) and key.startswith(_PREFIX)):
            return
        visit = key.rsplit("-", 2)[1]
        if finish in ("waiting", "queued", "no-worker", "processing"):
            self._running[visit] = key
            task = self._scheduler.tasks[key]
            task.suspicious = self._scheduler.allowed_failures  # so that the next loss of a worker exceeds the limit
        elif self._running.get(visit) == key:
            del self._running[visit]

    def restart(self, scheduler: Scheduler) -> None:
        self._running.clear()

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self._tell_workers()

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        self._tell_workers()

    def _tell_workers(self) -> None:
        self._changes += 1
        self._scheduler.log_event(TOPIC, self._workers())

    def _workers(self) -> dict[str, Any]:
        return {"workers": len(self._scheduler.workers), "change": self._changes}

    def _find(self, visit: str) -> dict[str, Any]:
        """The key of the task of a visit, or None; and the number of workers."""
        return {"key": self._running.get(visit), **self._workers()}
