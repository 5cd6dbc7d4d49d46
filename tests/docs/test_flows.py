"""The example workflows, undisturbed and killed at each commit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from docs.examples.flows import approval, polling, quorum, release_graph, saga, tool_review
from spine_async import Workflow, WorkflowRunner
from spine_async.storage import MemoryRunStore
from spine_async.testing import VirtualClock, assert_resumes, run_virtual

AGREE = {"accepts": True}
CASES: dict[str, tuple[Workflow, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "approved": (
        approval.WORKFLOW,
        {"amounts": [70, 80]},
        {"ask": {"approved": True, "by": "Eve"}},
        {"pay": {"paid": 150, "by": "Eve"}},
    ),
    "refused": (
        approval.WORKFLOW,
        {"amounts": [70, 80]},
        {"ask": {"approved": False, "by": "Eve"}},
        {"pay": {"paid": 0, "by": "Eve"}},
    ),
    "too small to ask": (approval.WORKFLOW, {"amounts": [7]}, {}, {"pay": {"paid": 7, "by": "rule"}}),
    "quorum": (
        quorum.WORKFLOW,
        {},
        {"vote of ann": AGREE, "vote of cy": AGREE},
        {"summarise": {"accepted": True, "referees": ["ann", "cy"]}},
    ),
    "graph": (
        release_graph.WORKFLOW,
        {"tag": "v1"},
        {},
        {"publish": {"published": ["wheel of v1-c0ffee", "html of v1-c0ffee"]}},
    ),
    "polling": (polling.WORKFLOW, {"file": "a.mov"}, {}, {"report": {"answers": [25, 50, 75, 100]}}),
    "tool review": (
        tool_review.WORKFLOW,
        {"task": "the logs"},
        {"review": {"approved": True, "edited": "archive logs of 2024"}},
        {"act": {"result": "done: archive logs of 2024"}},
    ),
    "tool refused": (tool_review.WORKFLOW, {"task": "the logs"}, {"review": {"approved": False}}, {}),
}


@pytest.mark.anyio
@pytest.mark.sample(every=2)
@pytest.mark.parametrize("case", CASES)
async def test_a_flow_ends_as_described_and_resumes_wherever_it_is_killed(case: str) -> None:
    workflow, params, signals, expected = CASES[case]
    async with WorkflowRunner(store=MemoryRunStore()) as runner:
        handle = await runner.start(workflow, params=params)
        for name, value in signals.items():
            await handle.signal(name, value)
        result = await handle.result(timeout=20)
    result.raise_for_status()
    assert {step: result.context.get_output(step) for step in expected} == expected
    assert await assert_resumes(workflow, params, signals=signals) >= 4


def test_the_report_is_escalated_if_nobody_answers() -> None:
    first, small, ask, *others = approval.WORKFLOW.steps
    workflow = Workflow("expense", [first, small, replace(ask, timeout=600), *others])

    async def answer_when_it_was_escalated() -> Any:
        async with WorkflowRunner(store=MemoryRunStore(VirtualClock()), clock=VirtualClock()) as runner:
            handle = await runner.start(workflow, params={"amounts": [500]})
            async for event in handle.events(follow=True):
                if event.event_type == "step_completed" and event.step_name == "escalate":
                    await handle.signal("ask", {"approved": True, "by": "Max"})
            return await handle.result()

    result = run_virtual(answer_when_it_was_escalated)
    assert result.context.get_output("pay") == {"paid": 500, "by": "Max"}
    assert result.duration_ms >= 600 * 1000


@pytest.mark.anyio
async def test_a_trip_that_cannot_be_booked_is_cancelled_wherever_it_is_killed() -> None:
    params = {"guest": "Ida", "sold_out": ["car"]}
    result = await WorkflowRunner(store=MemoryRunStore()).execute(saga.WORKFLOW, params=params)
    assert (result.status, result.error_step) == ("failed", "car")
    assert result.compensated_steps == ["hotel", "flight"]
    assert result.context.get_output("write") == {"written_to": "Ida"}
    kills = await assert_resumes(
        saga.WORKFLOW, params, compare=lambda result: (result.status, result.error, result.compensated_steps)
    )
    assert kills >= 10
    assert await assert_resumes(saga.WORKFLOW, {"guest": "Ida"}) >= 8
