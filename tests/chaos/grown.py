"""Grows random workflows from all kinds of steps; the handlers note what they do in a diary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import Connection, insert

from spine_async import END, RetryPolicy, Step, StepResult, Workflow, WorkflowContext
from spine_async._model.status import StepType
from spine_async._model.step import Definition
from spine_async._model.workflow_step import WorkflowStep
from tests.service.ledger import ledger

NOW = RetryPolicy(delays=[0.0])
AGAIN = RetryPolicy(delays=[0.0], retryable_errors=("DATA_QUALITY", "TRANSIENT", "DEPENDENCY"))
KINDS = ("plain", "plain", "appends", "updates", "once", "flaky", "fails")
VALUE = {"approved": True}
"""The value of every signal, so that it does not matter which item receives which."""


@dataclass
class Diary:
    """What the handlers of one life did.

    Attributes:
        calls: The visits whose handlers were called, as `run/path`.
    """

    calls: Counter[str] = field(default_factory=Counter)


diary = Diary()


def _note(context: WorkflowContext) -> None:
    diary.calls[str(context.idempotency_key)] += 1


async def work(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
    """Returns, fails, fails at first, appends or changes params, as its config says."""
    _note(context)
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
    _note(context)
    return {"undone": config.get("at")}


def enter(context: WorkflowContext, config: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """A transactional step: one entry in the ledger for each visit."""
    _note(context)
    connection.execute(insert(ledger).values(what=str(context.idempotency_key)))
    return {"entered": config["at"]}


def is_short(context: WorkflowContext) -> bool:
    return len(context.params.get("log", [])) < 2


@st.composite
def workflows(draw: st.DrawFn, *, transactions: bool) -> Workflow:
    """A workflow; `transactions`: whether it may contain transactional steps."""
    return Workflow("grown", draw(steps(transactions)), cleanup=draw(cleanups()))


@st.composite
def cleanups(draw: st.DrawFn, name: str = "tidy") -> list[Step]:
    return [Step.lambda_(name, work, config={"kind": "plain", "at": name})] if draw(st.booleans()) else []


@st.composite
def steps(draw: st.DrawFn, transactions: bool, depth: int = 2, prefix: str = "s") -> list[Step]:
    count = draw(st.integers(1, 4))
    return [
        draw(step(transactions, depth, f"{prefix}{number}", f"{prefix}{number + 1}" if number + 1 < count else END))
        for number in range(count)
    ]


LEAVES = ("lambda", "lambda", "lambda", "choice", "wait", "signal")
NESTS = ("map", "parallel", "workflow", "queued")


@st.composite
def step(draw: st.DrawFn, transactions: bool, depth: int, name: str, following: str) -> Step:
    """A step; `following` is a target that exists."""
    kinds = LEAVES + (NESTS if depth else ()) + (("transaction",) * 3 if transactions else ())
    kind, options, catch = draw(st.sampled_from(kinds)), dict[str, Any](), dict[str, Any]()
    if draw(st.booleans()):
        catch["catch"] = {draw(st.sampled_from(["*", "DATA_QUALITY"])): following}
    if kind in NESTS:
        return draw(nesting(transactions, depth, kind, name, options=catch))
    if kind == "choice":
        return Step.choice(name, is_short, then_step=following, else_step=END)
    if kind == "wait":
        return Step.wait(name, 0.0)
    if kind == "signal":
        return draw(signals(name))
    if draw(st.booleans()):
        options["compensate"] = undo
    if kind == "transaction":
        options |= {"on_error": "retry", "retry": NOW}  # an attempt without the database fails
        return Step.transaction(name, enter, config={"at": name}, **options)
    config = {"kind": draw(st.sampled_from(KINDS)), "at": name}
    return Step.lambda_(name, work, config=config, on_error="retry", retry=NOW, **options, **catch)


@st.composite
def signals(draw: st.DrawFn, name: str) -> Step:
    """A wait for a signal that is sent, or for one that never comes."""
    if draw(st.booleans()):
        return Step.wait_for_signal(name)
    return Step.wait_for_signal(name, signal="never", timeout=0.001, on_timeout="continue")


@st.composite
def nesting(draw: st.DrawFn, transactions: bool, depth: int, kind: str, name: str, *, options: dict[str, Any]) -> Step:
    """A step that executes others. Where a failure ends it, one scope is executed at a time, so that it ends alike."""
    inner = f"{name}x"
    if kind == "map":
        width = draw(st.integers(1, 3))
        return Step.map(
            name,
            items=list(range(draw(st.integers(0, 3)))),
            iterator=Workflow("item", draw(steps(transactions, depth - 1, inner))),
            tolerated_failures=0 if width == 1 else 5,
            max_concurrency=width,
            **options,
        )
    if kind == "parallel":
        branches = {each: draw(steps(transactions, depth - 1, f"{inner}{each}")) for each in ("p", "q")}
        return Step.parallel(name, branches, max_concurrency=1, **options)
    if draw(st.booleans()):
        options |= {"on_error": "retry", "retry": AGAIN}
    child = draw(steps(transactions, depth - 1, inner))
    if kind == "workflow":
        return Step.workflow(name, Workflow("child", child), **options)
    cleanup = draw(cleanups(f"{inner}tidy"))
    return Step.workflow(name, Workflow(f"child-{name}", child, cleanup=cleanup), queue="default", **options)


def definitions(workflow: Definition) -> dict[str, Definition]:
    """The workflow and those of its queued children, by name."""
    found = {workflow.name: workflow}
    for each in _steps_of(workflow):
        if isinstance(each, WorkflowStep) and each.queue is not None:
            found |= definitions(each.child)
    return found


def expected_signals(workflow: Definition) -> set[str]:
    """Names of the signals that a run of the workflow may wait for."""
    return {each.name for each in _steps_of(workflow) if each.step_type == StepType.SIGNAL}


def compensated_names(workflow: Definition) -> set[str]:
    """Names of the steps of a run that have a compensation."""
    return {each.name for each in _steps_of(workflow) if each.compensate is not None}


def _steps_of(workflow: Definition) -> Iterator[Step]:
    for each in (*workflow.steps, *workflow.cleanup):
        yield each
        for inner in each.inner.values():
            yield from _steps_of(inner)
