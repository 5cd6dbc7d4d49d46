"""Random workflows of all kinds of steps, killed at a random commit: the end is that of the undisturbed run."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from spine_async import END, RetryPolicy, Step, StepResult, Workflow, WorkflowContext, WorkflowResult
from spine_async.testing.resumption import _end_of, _Trial
from tests.chaos.size import SEED, report, size

NOW = RetryPolicy(delays=[0.0])
worlds: dict[str, int] = {"n": 0, "kills": 0}


async def work(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
    """Returns, fails, fails at first, appends or changes params, as its config says."""
    kind = config["kind"]
    if kind == "fails" or (kind == "flaky" and context.attempt == 1):
        return StepResult.fail("as told", "TRANSIENT" if kind == "flaky" else "DATA_QUALITY")
    if kind == "appends":
        return StepResult.ok({"at": config["at"]}, append={"log": [config["at"]]})
    if kind == "updates":
        return StepResult.ok({"at": config["at"]}, context_updates={"last": config["at"]})
    if kind == "once":
        first, second = [await context.once("call", value, config["at"], number) for number in (1, 2)]
        return StepResult.ok({"at": config["at"], "values": [first, second]})
    return StepResult.ok({"at": config["at"], "log": list(context.params.get("log", []))})


async def value(at: str, number: int) -> str:
    return f"{at} {number}"


async def undo(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {"undone": config["at"]}


def is_short(context: WorkflowContext) -> bool:
    return len(context.params.get("log", [])) < 2


KINDS = ("plain", "plain", "appends", "updates", "once", "flaky", "fails")


@st.composite
def steps(draw: st.DrawFn, depth: int = 2, prefix: str = "s") -> list[Step]:
    count = draw(st.integers(1, 4))
    return [
        draw(step(depth, f"{prefix}{number}", f"{prefix}{number + 1}" if number + 1 < count else END))
        for number in range(count)
    ]


@st.composite
def step(draw: st.DrawFn, depth: int, name: str, following: str) -> Step:
    """A step; `following` is a target that exists."""
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["catch"] = {draw(st.sampled_from(["*", "DATA_QUALITY"])): following}
    kind = draw(st.sampled_from(["lambda", "lambda", "lambda", "choice", "wait", "map", "parallel", "workflow"]))
    if depth == 0 and kind in {"map", "parallel", "workflow"}:
        kind = "lambda"
    inner = f"{name}x"
    if kind == "map":
        return Step.map(
            name,
            items=list(range(draw(st.integers(0, 3)))),
            iterator=Workflow("item", draw(steps(depth - 1, inner))),
            tolerated_failures=draw(st.sampled_from([0, 5])),
            max_concurrency=draw(st.integers(1, 3)),
            **options,
        )
    if kind == "parallel":
        branches = {each: draw(steps(depth - 1, f"{inner}{each}")) for each in ("p", "q")}
        return Step.parallel(name, branches, max_concurrency=1, **options)
    if kind == "workflow":
        return Step.workflow(name, Workflow("child", draw(steps(depth - 1, inner))), **options)
    if kind == "choice":
        return Step.choice(name, is_short, then_step=following, else_step=END)
    if kind == "wait":
        return Step.wait(name, 0.0)
    if draw(st.booleans()):
        options["compensate"] = undo
    config = {"kind": draw(st.sampled_from(KINDS)), "at": name}
    return Step.lambda_(name, work, config=config, on_error="retry", retry=NOW, **options)


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    cleanup = [Step.lambda_("tidy", work, config={"kind": "plain", "at": "tidy"})] if draw(st.booleans()) else []
    return Workflow("grown", draw(steps()), cleanup=cleanup)


def end_of(result: WorkflowResult) -> dict[str, Any]:
    # Items of a map and branches end in any order, so their compensations do too.
    return {
        **_end_of(result),
        "compensated": sorted(result.compensated_steps),
        "params": result.to_dict()["context"]["params"],
    }


async def compare(workflow: Workflow, place: float, moment: Any) -> None:
    trial = _Trial(workflow, {}, {}, end_of, None, None)
    undisturbed, commits = await trial.run(0, "before")
    number = 1 + int(place * (commits - 1))
    killed, _ = await trial.run(number, moment)
    worlds["n"] += 1
    worlds["kills"] += 1
    assert killed == undisturbed, f"killed {moment} commit {number} of {commits}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_random_workflows_end_alike_wherever_they_are_killed() -> None:
    @seed(SEED)
    @settings(
        max_examples=size(200, 5000),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(workflows(), st.floats(0, 1), st.sampled_from(["before", "after"]))
    def grow(workflow: Workflow, place: float, moment: Any) -> None:
        anyio.run(compare, workflow, place, moment)

    grow()
    report("grown workflows", **worlds)
