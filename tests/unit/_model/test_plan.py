"""Plans of workflows, and their drawings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from spine_async import END, Plan, PlannedStep, PlannedTarget, RetryPolicy, Step, Workflow, WorkflowContext
from spine_async._model.mermaid import mermaid_of
from spine_async._model.naming import name_problem

NODE = re.compile(
    r'(?P<node>\w+)(?:\["[^"]*"\]|\[\["[^"]*"\]\]|\{"[^"]*"\}|\{\{"[^"]*"\}\}|>"[^"]*"\]|\[\("[^"]*"\)\]|\(\["[^"]*"\]\)|\(\("[^"]*"\)\))'
)
ARROW = re.compile(r'(?P<begin>\w+) (?:-->|-->\|"[^"]*"\||-\.->\|"[^"]*"\|) (?P<end>\w+)')
UNDO = re.compile(r'(?P<node>\w+_undo)\["[^"]*"\] -\.- (?P<end>\w+)')
START = re.compile(r'start\(\["[^"]*"\]\) --> (?P<end>\w+)')


class Answer(BaseModel):
    yes: bool


def handler(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {}


def is_big(context: WorkflowContext) -> bool:
    return True


def every_kind() -> Workflow:
    inner = Workflow(
        steps=[Step.lambda_("a", handler), Step.choice("more", is_big, "b", END), Step.lambda_("b", handler)]
    )
    policy = RetryPolicy(max_attempts=3)
    caught = {"TIMEOUT": "undo", "*": END}
    return Workflow(
        "orders",
        [
            Step.lambda_(
                "fetch", handler, {"key": "secret"}, retry=policy, timeout=5, output_model=Answer, catch=caught
            ),
            Step.choice("big", is_big, "each"),
            Step.lambda_("small", handler, next_step="approve"),
            Step.map("each", items=[1, 2], iterator=inner, max_concurrency=3, tolerated_failures=1),
            Step.map("rows", items_path="fetch.rows", iterator=handler, collect=False),
            Step.wait("pause", 60),
            Step.wait_for_signal("approve", signal="answer", model=Answer, timeout=5, on_timeout="undo"),
            Step.pipeline("load", "etl.load", on_error="continue"),
            Step.transaction("write", lambda context, config, connection: None, next_step=END),
            Step.lambda_("undo", handler),
            Step.parallel("both", {"left": handler, "right": [Step.wait("rest", 5)]}, need="any"),
            Step.workflow("child", Workflow("letters", [Step.lambda_("letter", handler)]), {"to": "secret"}),
        ],
        version=4,
    )


def test_a_plan_has_the_steps_with_kinds_options_and_targets() -> None:
    plan = every_kind().plan()
    assert (plan.workflow, plan.version) == ("orders", 4)
    steps = {step.name: step for step in plan.steps}
    kinds = ["lambda", "choice", "lambda", "map", "map", "wait", "signal", "pipeline", "transaction", "lambda"]
    assert [step.kind for step in plan.steps] == [*kinds, "parallel", "workflow"]
    assert steps["fetch"].options == {
        "handler": "handler",
        "config": "key",
        "retry": "3 attempts, exponential",
        "timeout": "5 s",
        "output_model": "Answer",
    }
    assert steps["fetch"].targets == (
        PlannedTarget("big", "next"),
        PlannedTarget("undo", "TIMEOUT", is_failure=True),
        PlannedTarget(END, "*", is_failure=True),
    )
    assert steps["big"].targets == (PlannedTarget("each", "then"), PlannedTarget("small", "else"))
    assert steps["small"].targets == (PlannedTarget("approve", "next"),)
    assert steps["approve"].targets == (PlannedTarget("load", "next"), PlannedTarget("undo", "timeout"))
    assert steps["write"].targets == steps["child"].targets == (PlannedTarget(END, "next"),)
    assert steps["each"].options == {
        "items": "2 given",
        "item_param": "item",
        "max_concurrency": "3",
        "tolerated_failures": "1",
    }
    assert [step.name for step in steps["each"].inner[""].steps] == ["a", "more", "b"]
    assert (steps["rows"].options["items"], steps["rows"].options["collect"]) == ("fetch.rows", "False")
    assert steps["approve"].options["signal"] == "answer"
    assert {name: [step.name for step in inner.steps] for name, inner in steps["both"].inner.items()} == {
        "left": ["left"],
        "right": ["rest"],
    }
    assert steps["both"].options == {"need": "any"}
    assert steps["child"].options == {"workflow": "letters", "params": "to"}
    assert steps["child"].inner[""].workflow == "letters"
    assert steps["load"].options == {"pipeline": "etl.load", "on_error": "continue"}


def test_the_text_of_a_plan() -> None:
    lines = str(every_kind().plan()).splitlines()
    assert lines[0] == "orders (version 4)"
    assert lines[2] == "   2. big (choice, condition=is_big): then → each, else → small"
    assert "      1. a (lambda, handler=handler)" in lines
    assert "      2. more (choice, condition=is_big): then → b, else → end" in lines
    assert next(line for line in lines if "write" in line).endswith("): next → end")
    assert "  10. undo (lambda, handler=handler)" in lines
    assert lines[-4:] == [
        "      [right]",
        "        1. rest (wait, seconds=5)",
        "  12. child (workflow, workflow=letters, params=to)",
        "      1. letter (lambda, handler=handler)",
    ]
    assert "secret" not in "\n".join(lines)


def test_a_plan_has_a_json_form() -> None:
    plan = every_kind().plan()
    document = json.loads(json.dumps(plan.to_dict()))
    assert document["steps"][3]["inner"][""]["steps"][0]["name"] == "a"
    assert document["steps"][0]["targets"][1] == {"step": "undo", "when": "TIMEOUT", "is_failure": True}


def parsed(chart: str) -> tuple[set[str], set[tuple[str, str]]]:
    """The nodes and the arrows of a flowchart; fails for a line that is neither, and for unbalanced subgraphs."""
    first, *lines = chart.splitlines()
    assert first == "flowchart TD"
    nodes, arrows, depth = {"start"}, set[tuple[str, str]](), 0
    for line in map(str.strip, lines):
        if line == "end":
            depth -= 1
        elif (start := START.fullmatch(line)) is not None:
            arrows.add(("start", start["end"]))
        elif (undo := UNDO.fullmatch(line)) is not None:
            nodes.add(undo["node"])
            arrows.add((undo["node"], undo["end"]))
        elif (arrow := ARROW.fullmatch(line)) is not None:
            arrows.add((arrow["begin"], arrow["end"]))
        else:
            depth += line.startswith("subgraph ")
            node = NODE.fullmatch(line.removeprefix("subgraph "))
            assert node is not None, line
            assert node["node"] not in nodes, f"{line} defines a node again"
            nodes.add(node["node"])
        assert depth >= 0
    assert depth == 0
    return nodes, arrows


def test_a_flowchart_has_every_step_and_every_target() -> None:
    workflow = every_kind()
    chart = workflow.to_mermaid()
    nodes, arrows = parsed(chart)
    assert {name for pair in arrows for name in pair} <= nodes
    inside = 3 + 1 + 1 + 1 + 1  # of the maps, the branches and the child; each scope also has an end
    assert len(nodes) == 2 + 12 + inside + 5 + 2  # also start and end, and the frames of two branches
    targets = sum(len(step.targets) for step in workflow.plan().steps)
    assert len(arrows) == 1 + targets + inside + 1
    for shown in ('s1{"big<br/>choice"}', 's0 -.->|"TIMEOUT"| s9', 's0 -.->|"any other failure"| finish'):
        assert shown in chart
    assert 's6>"approve<br/>signal: answer"]' in chart
    assert "secret" not in chart


def test_compensations_and_cleanup_steps() -> None:
    undone = PlannedStep("x", "lambda", {"compensate": "undo"}, (PlannedTarget(END, "next"),))
    steps = (
        PlannedStep("a", "lambda", {"compensate": "undo"}, (PlannedTarget("m", "next"),)),
        PlannedStep("m", "map", {}, (PlannedTarget(END, "next"),), {"": Plan("", 1, (undone,))}),
    )
    close = PlannedStep("close", "lambda", {}, (PlannedTarget("tell", "next"),))
    tell = PlannedStep("tell", "lambda", {}, (PlannedTarget(END, "next"),))
    plan = Plan("w", 1, steps, (close, tell))
    assert str(plan).splitlines() == [
        "w (version 1)",
        "  1. a (lambda, compensate=undo)",
        "  2. m (map)",
        "     1. x (lambda, compensate=undo)",
        "  cleanup:",
        "    1. close (lambda)",
        "    2. tell (lambda)",
    ]
    assert json.loads(json.dumps(plan.to_dict()))["cleanup"][1]["name"] == "tell"
    nodes, arrows = parsed(mermaid_of(plan))
    assert {each for pair in arrows for each in pair} <= nodes
    assert {("s1", "cleanup"), ("cleanup", "finish"), ("cleanup_0", "cleanup_1")} <= arrows
    assert {("s0_undo", "s0"), ("s1_0_0_undo", "s1_0_0")} <= arrows


def test_a_workflow_with_compensations_and_cleanup_steps() -> None:
    steps = [Step.lambda_("a", handler, compensate=handler)]
    workflow = Workflow("w", steps, cleanup=[Step.lambda_("close", handler), Step.lambda_("tell", handler)])
    plan = workflow.plan()
    assert plan.steps[0].options["compensate"] == "handler"
    assert [(step.name, step.targets) for step in plan.cleanup] == [
        ("close", (PlannedTarget("tell", "next"),)),
        ("tell", (PlannedTarget(END, "next"),)),
    ]
    nodes, arrows = parsed(workflow.to_mermaid())
    assert {each for pair in arrows for each in pair} <= nodes


def names() -> Iterator[str]:
    printable = [chr(code) for code in range(32, 0x250) if chr(code).isprintable()]
    allowed = [each for each in printable if name_problem(f"x{each}x") is None]
    yield from ("".join(["x", *allowed[begin : begin + 40], "x"]) for begin in range(0, len(allowed), 40))
    yield from (
        "end",
        "graph",
        "subgraph",
        "click",
        'a"b',
        "`code`",
        "<b>",
        "a&amp;b",
        "%% comment",
        "{{x}}",
        "日本語 ✓",
    )


@pytest.mark.parametrize("name", list(names()))
def test_any_name_can_be_drawn(name: str) -> None:
    inner = Workflow(steps=[Step.lambda_(name, handler)])
    workflow = Workflow(name, [Step.lambda_(name, handler), Step.map("map", items=[1], iterator=inner)])
    nodes, arrows = parsed(workflow.to_mermaid())
    assert {each for pair in arrows for each in pair} <= nodes


def test_a_plan_is_a_value() -> None:
    assert every_kind().plan().steps[:-2] == every_kind().plan().steps[:-2]
    assert isinstance(every_kind().plan(), Plan)
