"""Choices: jumps, skipped steps, branches that join, and loops."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import pytest

from spine_async import Step, StepError, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig

pytestmark = pytest.mark.anyio


class Trace:
    """Handlers that note the order in which they ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def step(self, name: str, **options: Any) -> Step:
        async def handler(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
            self.ran.append(name)
            return {"visit": self.ran.count(name)}

        return Step.lambda_(name, handler, **options)


@pytest.fixture
def trace() -> Trace:
    return Trace()


def large(context: WorkflowContext) -> bool:
    return bool(context.params["n"] > 10)


@pytest.mark.parametrize(
    ("n", "ran", "skipped", "output"),
    [
        (50, ["big", "end"], ["small"], {"condition_result": True, "branch": "then", "next_step": "big"}),
        (1, ["small", "end"], ["big"], {"condition_result": False, "branch": "else", "next_step": "small"}),
    ],
)
async def test_two_branches_join_by_next_step(
    runner: WorkflowRunner, trace: Trace, *, n: int, ran: list[str], skipped: list[str], output: Any
) -> None:
    steps = [
        Step.choice("size", large, "big", "small"),
        trace.step("big", next_step="end"),
        trace.step("small"),
        trace.step("end"),
    ]
    result = await runner.execute(Workflow("w", steps), params={"n": n})
    assert result.status == "completed"
    assert trace.ran == ran
    assert result.skipped_steps == skipped
    assert result.completed_steps == ["size", *ran]
    assert result.context.get_output("size") == output
    assert result.total_steps == 4


async def test_a_jump_forward_skips_what_lies_between(runner: WorkflowRunner, trace: Trace) -> None:
    steps = [Step.choice("size", large, "c"), trace.step("a"), trace.step("b"), trace.step("c"), trace.step("d")]
    result = await runner.execute(Workflow("w", steps), params={"n": 50})
    assert trace.ran == ["c", "d"]
    assert result.skipped_steps == ["a", "b"]


async def test_without_an_else_the_next_step_follows(runner: WorkflowRunner, trace: Trace) -> None:
    steps = [Step.choice("size", large, "c"), trace.step("a"), trace.step("b"), trace.step("c")]
    result = await runner.execute(Workflow("w", steps), params={"n": 1})
    assert trace.ran == ["a", "b", "c"]
    assert result.skipped_steps == []
    output = result.context.get_output("size")
    assert (output["condition_result"], output["branch"]) == (False, "else")


async def test_a_next_step_alone_jumps(runner: WorkflowRunner, trace: Trace) -> None:
    steps = [trace.step("a", next_step="c"), trace.step("b"), trace.step("c")]
    result = await runner.execute(Workflow("w", steps))
    assert trace.ran == ["a", "c"]
    assert result.skipped_steps == ["b"]


@pytest.mark.parametrize(
    ("answer", "branch"), [(1, "then"), ("yes", "then"), (0, "else"), ([], "else"), (None, "else")]
)
async def test_the_condition_is_stored_as_a_bool(
    runner: WorkflowRunner, trace: Trace, answer: Any, branch: str
) -> None:
    steps = [Step.choice("size", lambda context: answer, "a", "b"), trace.step("a"), trace.step("b")]
    result = await runner.execute(Workflow("w", steps))
    assert result.context.get_output("size", "condition_result") is (branch == "then")
    assert result.context.get_output("size", "branch") == branch


async def test_the_condition_reads_earlier_outputs_on_the_loop(runner: WorkflowRunner, trace: Trace) -> None:
    threads = []

    def condition(context: WorkflowContext) -> bool:
        threads.append(threading.get_ident())
        return bool(context.get_output("first", "visit") == 1)

    steps = [trace.step("first"), Step.choice("size", condition, "b"), trace.step("a"), trace.step("b")]
    await runner.execute(Workflow("w", steps))
    assert trace.ran == ["first", "b"]
    assert threads == [threading.get_ident()]


@pytest.mark.parametrize(
    ("error", "category"),
    [(KeyError("colour"), "INTERNAL"), (StepError("which one?", category="CONFIGURATION"), "CONFIGURATION")],
)
async def test_a_condition_that_raises_fails_the_step(
    runner: WorkflowRunner, trace: Trace, error: Exception, category: str
) -> None:
    def condition(context: WorkflowContext) -> bool:
        raise error

    result = await runner.execute(Workflow("w", [Step.choice("size", condition, "a"), trace.step("a")]))
    assert (result.status, result.error_step, result.error_category) == ("failed", "size", category)
    assert error.args[0] in str(result.error)
    assert trace.ran == []


def loop(trace: Trace, again: Callable[[WorkflowContext], bool]) -> Workflow:
    return Workflow("loop", [trace.step("work"), Step.choice("again", again, "work"), trace.step("end")])


async def test_a_jump_back_is_a_loop(runner: WorkflowRunner, trace: Trace) -> None:
    workflow = loop(trace, lambda context: bool(context.get_output("work", "visit") < 3))
    result = await runner.execute(workflow)
    assert result.status == "completed"
    assert trace.ran == ["work", "work", "work", "end"]
    assert result.completed_steps == ["work", "again", "end"]
    assert result.context.get_output("work") == {"visit": 3}
    assert result.total_steps == 3


async def test_each_visit_has_its_own_metrics(runner: WorkflowRunner, trace: Trace) -> None:
    result = await runner.execute(loop(trace, lambda context: bool(context.get_output("work", "visit") < 3)))
    names = [metric.name for metric in result.step_metrics]
    assert len(names) == 7
    assert [name.split("#")[0] for name in names] == ["work", "again"] * 3 + ["end"]


async def test_each_visit_has_its_own_idempotency_key(runner: WorkflowRunner) -> None:
    keys = []

    async def work(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        keys.append(context.idempotency_key)

    steps = [Step.lambda_("work", work), Step.choice("again", lambda context: len(keys) < 3, "work")]
    await runner.execute(Workflow("loop", steps))
    assert len(keys) == 3
    assert len(set(keys)) == 3


async def test_a_choice_may_jump_to_itself_no_more_often_than_allowed(make_runner: Any) -> None:
    runner = make_runner(config=WorkflowRunnerConfig(max_step_visits=12))
    with anyio.fail_after(10):
        result = await runner.execute(Workflow("loop", [Step.choice("spin", lambda context: True, "spin")]))
    assert result.status == "failed"
    assert "12" in result.error
    assert "max_step_visits" in result.error
    assert "spin" in result.error or result.error_step == "spin"


async def test_a_run_within_the_limit_of_visits_is_left_alone(make_runner: Any, trace: Trace) -> None:
    runner = make_runner(config=WorkflowRunnerConfig(max_step_visits=7))
    result = await runner.execute(loop(trace, lambda context: bool(context.get_output("work", "visit") < 3)))
    assert result.status == "completed"
