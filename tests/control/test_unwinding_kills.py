"""Runs die at every commit while they unwind: each visit is compensated once, and each cleanup step runs once."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async._model.visit_filter import VisitFilter
from spine_async.storage import MemoryRunStore
from tests.service.places import Place

pytestmark = pytest.mark.anyio


class Death(BaseException):
    """The process dies here."""


class DyingStore(MemoryRunStore):
    """Counts its calls that write or read rows; the process dies before or after the chosen one."""

    def __init__(self) -> None:
        super().__init__()
        self.points = 0
        self.dies_at = 0
        self.is_dead = False

    async def commit(self, changes: Any) -> Any:
        self._point()
        outcome = await super().commit(changes)
        self._point()
        return outcome

    async def visits(self, *args: Any) -> Any:
        self._point()
        return await super().visits(*args)

    def _point(self) -> None:
        self.points += 1
        if self.is_dead or self.points == self.dies_at:
            self.is_dead = True
            raise Death


class Trip:
    """A workflow that fails after three bookings, one of them inside a map; notes the compensations that ran."""

    def __init__(self) -> None:
        self.undone: list[str] = []
        self.workflow = Workflow(
            "trip",
            [
                self._booking("hotel"),
                Step.map("each", items=[1, 2], iterator=Workflow(steps=[self._booking("seat")]), max_concurrency=1),
                Step.lambda_("pay", self._fail),
            ],
            cleanup=[Step.lambda_("tidy", self._book), Step.lambda_("close", self._book)],
        )

    def _booking(self, name: str) -> Step:
        return Step.lambda_(name, self._book, compensate=self._undo)

    async def _book(self, context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        return {"key": context.idempotency_key}

    async def _undo(self, context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        self.undone.append(str(context.idempotency_key).partition("/")[2])
        return {"undone": True}

    async def _fail(self, context: WorkflowContext, config: dict[str, Any]) -> None:
        raise ConnectionError("gone")


ALL = ["each[1]/seat", "each[0]/seat", "hotel"]


async def _live(store: DyingStore, trip: Trip) -> Any:
    config = WorkflowRunnerConfig(trace_enabled=False, max_claims=1000)
    async with WorkflowRunner(store=store, config=config, work=False) as runner:
        return await runner.execute(trip.workflow, run_id="r")


async def test_a_death_at_every_commit() -> None:
    undisturbed, trip = DyingStore(), Trip()
    assert (await _live(undisturbed, trip)).compensated_steps == ALL
    assert undisturbed.points > 12
    for number in range(1, undisturbed.points + 1):
        store, trip = DyingStore(), Trip()
        store.dies_at = number
        with pytest.raises(BaseException):  # noqa: B017, PT011 - a death, or the store error that it becomes
            await _live(store, trip)
        store.is_dead, store.dies_at = False, 0
        for found in store._runs.values():
            found.lease_end = 0.0
        result = await _live(store, trip)
        assert (result.status, result.error_step, result.compensated_steps) == ("failed", "pay", ALL), number
        await _check_rows(store, trip)


async def _check_rows(store: DyingStore, trip: Trip) -> None:
    rows = [row.path for row in await store.visits("r", VisitFilter()) if row.status == "completed"]
    assert rows[:4] == ["hotel", "each[0]/seat", "each[1]/seat", "each"]
    assert rows[4:] == [*(f"{path}~compensate" for path in ALL), "tidy", "close"]
    assert list(dict.fromkeys(trip.undone)) == [f"{path}~compensate" for path in ALL]
    assert len(trip.undone) <= len(ALL) + 1  # only the one whose commit was lost is repeated


PROGRAM = """
import os, signal, sys
import anyio
from tests.control.test_unwinding_kills import Trip
from tests.service.places import Place

class Killed(Trip):
    async def _undo(self, context, config):
        self.at(context)
        return await super()._undo(context, config)

    async def _book(self, context, config):
        if context.step_name in ("tidy", "close"):
            self.at(context)
        return await super()._book(context, config)

    def at(self, context):
        if context.idempotency_key == "r/" + sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with Place(sys.argv[1]).runner(work=False) as runner:
        await runner.execute(Killed().workflow, run_id="r")

anyio.run(main)
"""


@pytest.mark.parametrize("at", ["each[1]/seat~compensate", "hotel~compensate", "close"])
async def test_a_process_that_is_killed_while_it_unwinds(database_url: str, at: str) -> None:
    """Another process does the rest at once, because the owner of the run is gone."""
    root, program = Path(__file__).parents[2], [sys.executable, "-c", PROGRAM, database_url, at]
    died = await anyio.run_process(program, cwd=root, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    trip = Trip()
    async with Place(database_url).runner(work=False) as runner:
        result = await runner.execute(trip.workflow, run_id="r")
        paths = [each.path for each in await runner.list_checkpoints("r")]
    assert (result.status, result.error_step, result.compensated_steps) == ("failed", "pay", ALL)
    assert paths[4:] == [*(f"{path}~compensate" for path in ALL), "tidy", "close"]
    left = [f"{path}~compensate" for path in ALL]
    assert trip.undone == (left[left.index(at) :] if at in left else [])


STOPPED = """
import os, signal, sys
import anyio
from spine_async import Step, Workflow
from tests.control.test_unwinding_kills import Trip, stubborn_trip
from tests.service.places import Place

async def main():
    begun = anyio.Event()

    async def stubborn(context, config):
        begun.set()
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()

    async with Place(sys.argv[1]).runner() as runner:
        handle = await runner.start(stubborn_trip(Trip(), stubborn), run_id="r")
        await begun.wait()
        await handle.stop("enough", compensate=True)
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""


def stubborn_trip(trip: Trip, handler: Any) -> Workflow:
    return Workflow("trip", [trip._booking("hotel"), Step.lambda_("wait", handler)], cleanup=trip.workflow.cleanup)


async def test_a_stop_outlives_a_process_that_dies_before_its_step_ends(database_url: str) -> None:
    """The step does not react to its cancellation, so the run has not begun to unwind when the process dies."""
    root, program = Path(__file__).parents[2], [sys.executable, "-c", STOPPED, database_url]
    died = await anyio.run_process(program, cwd=root, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    trip = Trip()
    async with Place(database_url).runner(workflows=[stubborn_trip(trip, trip._fail)]) as runner:
        result = await runner.handle("r").result(30)
    assert (result.status, result.stop_reason, result.compensated_steps) == ("stopped", "enough", ["hotel"])
    assert result.completed_steps == ["hotel", "tidy", "close"]
