"""The wall clock is set while a run is parked: what was given as a duration takes that time, and not longer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from spine_async import RetryPolicy, RunHandle, RunStatus, Step, StepError, Workflow, WorkflowContext
from spine_async._clock import SystemClock
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

HOUR = 3600.0
SECONDS = 0.7
AGAIN = RetryPolicy(max_attempts=2, backoff="constant", initial_delay=SECONDS, jitter=False)


class ShiftedClock(SystemClock):
    """The clock of the host, whose wall clock can be set."""

    shift = 0.0

    def now(self) -> datetime:
        return SystemClock.now() + timedelta(seconds=self.shift)


async def fails_once(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    if context.attempt == 1:
        raise StepError("not yet", category="TRANSIENT")


def step(kind: str) -> Step:
    if kind == "wait":
        return Step.wait("pause", SECONDS)
    if kind == "signal":
        return Step.wait_for_signal("go", timeout=SECONDS, on_timeout="continue")
    if kind == "retry":
        return Step.lambda_("again", fails_once, retry=AGAIN)
    longer = Workflow(steps=[Step.wait("longer", 2 * SECONDS)])
    return Step.parallel("both", {"one": Workflow(steps=[Step.wait("pause", SECONDS)]), "other": longer})


async def is_parked(handle: RunHandle) -> bool:
    record = await handle.record()
    return record.status is RunStatus.WAITING and record.owner is None


@pytest.mark.pairs
@pytest.mark.parametrize("kind", ["wait", "signal", "retry", "parallel"])
@pytest.mark.parametrize("shift", [-HOUR, HOUR])
@pytest.mark.parametrize("by", ["the same runner", "another runner"])
async def test_the_duration_lasts_as_long(place: Place, kind: str, shift: float, by: str) -> None:
    clock, flow = ShiftedClock(), Workflow("parked", [step(kind)])
    settings: dict[str, Any] = {"clock": clock, "workflows": [flow], "config": {"park_after": 0}}
    began = time.monotonic()
    async with place.runner(**settings) as runner:
        handle = await runner.start(flow, run_id="r")
        await until(lambda: is_parked(handle))
        clock.shift = shift
        if by == "the same runner":
            await handle.result(timeout=30)
    async with place.runner(**settings) as runner:
        result = await runner.handle("r").result(timeout=30)
    assert result.status == "completed"
    took = time.monotonic() - began
    assert took >= (2 if kind == "parallel" else 1) * SECONDS - 0.01
