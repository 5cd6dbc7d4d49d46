"""Parents with queued children, cleanup steps and compensations, interrupted at every write in turn: they end alike.

The short form stops them at every second write only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spine_async import RunStatus, Step, Workflow
from spine_async.storage import MemoryRunStore
from tests.chaos.fragile_store import How, Interrupt
from tests.chaos.grown import AGAIN, NOW, diary, undo, work
from tests.chaos.interrupts import UNDO, World
from tests.chaos.size import size
from tests.chaos.test_grown_workflows import end_of

pytestmark = pytest.mark.anyio


def step(name: str, kind: str = "plain", **options: Any) -> Step:
    return Step.lambda_(name, work, config={"kind": kind, "at": name}, on_error="retry", retry=NOW, **options)


def queued(name: str, *steps: Step, **options: Any) -> Step:
    child = Workflow(f"kid-{name}", steps, cleanup=[step(f"{name}tidy")])
    return Step.workflow(name, child, queue="default", on_error="retry", retry=AGAIN, **options)


def trip(last: Step) -> Workflow:
    """Bookings of the run and of two child runs, one of them in items of a map."""
    item = Workflow("item", [queued("seat", step("hold", compensate=undo), compensate=undo)])
    steps = [
        step("hotel", compensate=undo),
        queued("flight", step("book", compensate=undo), step("pay", "flaky"), compensate=undo),
        Step.map("each", items=[1, 2], iterator=item, max_concurrency=1),
        last,
    ]
    return Workflow("grown", steps, cleanup=[step("tidy")])


def completes() -> Workflow:
    return trip(step("last"))


def fails() -> Workflow:
    return trip(step("last", "fails"))


def child_fails() -> Workflow:
    """The child has bookings of its own, which it undoes before the bookings of its parent are undone."""
    return trip(queued("last", step("car", compensate=undo), step("broken", "fails")))


@pytest.mark.slow
@pytest.mark.sample(every=3)
@pytest.mark.parametrize(
    ("flow", "how"),
    [
        (completes, "kill before"),
        (completes, "stop"),
        (completes, "compensating stop"),
        (fails, "kill after"),
        (child_fails, "kill before"),
        (child_fails, "compensating stop"),
    ],
)
async def test_the_end_is_that_of_the_undisturbed_run(flow: Callable[[], Workflow], how: How) -> None:
    diary.calls.clear()
    undisturbed, writes = await World(flow(), MemoryRunStore()).live_through([])
    is_compensated = undisturbed.compensated_steps == ["each[1]/seat", "each[0]/seat", "flight", "hotel"]
    assert is_compensated == (flow is not completes)
    stopped = 0
    for number in range(2, writes + 1, 1 if "kill" in how else size(2, 1)):
        for death in (None, 1) if how == "compensating stop" else (None,):
            diary.calls.clear()
            world = World(flow(), MemoryRunStore())
            result, _ = await world.live_through([Interrupt(how, number, death)])
            await world.check_compensations(exactly=True)
            if result.status is RunStatus.STOPPED and result.stop_reason == UNDO:
                stopped += 1
            else:
                assert end_of(result) == end_of(undisturbed), f"{how} at write {number}, death {death}"
    assert (stopped > 0) == (how == "compensating stop")
