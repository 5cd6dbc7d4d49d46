"""`next_step` and `END` on every kind of step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spine_async import END, Step, Workflow, WorkflowContext
from tests.control.conftest import Trace
from tests.service.places import Place

pytestmark = pytest.mark.anyio


def work(context: WorkflowContext, config: dict[str, Any]) -> None:
    return None


KINDS: dict[str, Callable[..., Step]] = {
    "lambda": lambda **options: Step.lambda_("a", work, **options),
    "choice": lambda **options: Step.choice("a", lambda context: False, "b", **options),
    "map": lambda **options: Step.map("a", items=[1], iterator=work, **options),
    "wait": lambda **options: Step.wait("a", 0, **options),
    "signal": lambda **options: Step.wait_for_signal("a", timeout=0.001, on_timeout="continue", **options),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("target", "ran"), [("c", ["c"]), (END, []), (None, ["b", "c"])])
async def test_the_run_continues_there(
    memory: Place, trace: Trace, kind: str, target: str | None, ran: list[str]
) -> None:
    workflow = Workflow("w", [KINDS[kind](next_step=target), trace.step("b"), trace.step("c")])
    async with memory.runner(work=False) as runner:
        result = await runner.execute(workflow)
    assert (result.status, trace.ran) == ("completed", ran)


@pytest.mark.parametrize(("answer", "ran"), [(True, ["b"]), (False, [])])
async def test_a_branch_of_a_choice_may_end_the_run(
    memory: Place, trace: Trace, *, answer: bool, ran: list[str]
) -> None:
    steps = [Step.choice("choose", lambda context: answer, "b", END), trace.step("a"), trace.step("b")]
    async with memory.runner() as runner:
        result = await runner.execute(Workflow("w", steps))
    assert (result.status, trace.ran) == ("completed", ran)
    assert result.context.get_output("choose", "next_step") == (ran[0] if ran else None)


async def test_a_timeout_may_end_the_run(place: Place, trace: Trace) -> None:
    steps = [Step.wait_for_signal("approval", timeout=0.001, on_timeout=END), trace.step("a")]
    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("w", steps), run_id="r")
    async with place.runner(work=False) as other:
        again = await other.execute(Workflow("w", steps), run_id="r")
    assert (result.status, again.status, trace.ran) == ("completed", "completed", [])
    assert result.context.get_output("approval", "timed_out") is True


async def test_a_run_that_ended_early_is_resumed_from_its_position(place: Place, trace: Trace) -> None:
    """A stored jump to the end of an item is replayed."""
    inner = Workflow(steps=[trace.step("first", next_step=END), trace.step("never")])
    each = Step.map("each", items=[1, 2], iterator=inner)
    async with place.runner(work=False) as runner:
        await runner.execute(Workflow("w", [each, trace.failing("last")]), run_id="r")
    async with place.runner(work=False) as other:
        result = await other.resume("r", workflow=Workflow("w", [each, trace.step("last")]))
    assert result.status == "completed"
    assert trace.ran == ["first", "first", "last", "last"]
