"""A task that works in the background while a runner is entered."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any

from spine_async._engine.tasks import Task, spawn, wait_ended


@dataclass(slots=True)
class BackgroundTask:
    """At most one task, which works until it is ended.

    Args:
        name: Name of the task.
    """

    name: str
    _task: Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and not ended."""
        return self._task is not None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Execute `work`; the task must not be running."""
        self._task = spawn(work, self.name)

    async def end_with(self, rest: Awaitable[None]) -> None:
        """Cancel the task, await `rest`, and wait until the task has ended: its call of the store is completed.

        Cancellation:
            Raised once the task has ended.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        try:
            await rest
        finally:
            if task is not None:
                await wait_ended(task)
