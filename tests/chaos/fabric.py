"""Simulates the death of a process inside this process: after a failpoint every call of the store raises `Died`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from spine_async import SpineError, StoreUnavailableError, WorkflowResult, WorkflowRunner, WorkflowRunnerConfig
from spine_async.ports import RunStore
from tests.chaos.checks import History, Stored
from tests.chaos.diary import ListDiary
from tests.chaos.failpoints import Points, WatchedStore
from tests.chaos.stories import Story


class Died(StoreUnavailableError):  # noqa: N818 (nothing erred)
    """The store is unreachable for good; for the store this is the same as the death of the process."""


class Stage:
    """Runs runners that die one after the other on one store.

    Args:
        store: The store of the runners.
        look: Reads the stored rows, past the runners.
    """

    def __init__(self, store: RunStore, look: Callable[[], Stored]) -> None:
        self.store = store
        self.diary = ListDiary()
        self.history = History()
        self._look = look

    async def live(self, run: str, story: str, die_at: int = 0, ttl: float = 30.0) -> WorkflowResult | None:
        """Execute the run; returns None if the runner died at the failpoint `die_at`."""
        points = _Mortal(die_at)
        watched = WatchedStore(self.store, self.diary, points)
        workflow, dispatcher = Story(self.diary, points.reach).workflow(story)
        config = WorkflowRunnerConfig(lease_ttl=ttl, max_claims=1_000_000, trace_enabled=False)
        runner = WorkflowRunner(store=watched, dispatcher=dispatcher, config=config)
        self.points = points.names
        try:
            return await runner.execute(workflow, params={"day": 1}, run_id=run)
        except SpineError:
            if not points.is_dead:
                raise
            return None

    def look(self) -> Stored:
        """Check the diary and the stored rows."""
        self.history.take(self.diary.entries())
        stored = self._look()
        self.history.look(stored)
        return stored


class _Mortal(Points):
    """Failpoints; after the chosen one, each raises `Died`."""

    def __init__(self, chosen: int) -> None:
        super().__init__(chosen, self._die)
        self.is_dead = False

    def hit(self, name: str) -> None:
        if self.is_dead:
            raise Died(name)
        super().hit(name)

    def _die(self, name: str) -> NoReturn:
        self.is_dead = True
        raise Died(name)
