"""The context: immutable, cheap to extend, and the same for a step whether it shares a run or not."""

import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import QualityMetrics, Step, Workflow, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio

CHANGE_REFUSED = (AttributeError, TypeError, ValueError)


async def one(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"n": 1, "none": None, "list": [1, 2]}


@pytest.fixture
async def context(runner: WorkflowRunner) -> WorkflowContext:
    workflow = Workflow("demo", [Step.lambda_("first", one)])
    result = await runner.execute(workflow, params={"a": 1}, partition={"day": "2026-01-02"}, run_id="r1")
    return result.context


async def test_the_fields(context: WorkflowContext) -> None:
    assert (context.run_id, context.workflow_name) == ("r1", "demo")
    assert dict(context.params) == {"a": 1}
    assert dict(context.partition or {}) == {"day": "2026-01-02"}
    assert context.outputs["first"] == {"n": 1, "none": None, "list": [1, 2]}
    assert list(context.outputs) == ["first"]
    assert context.started_at.utcoffset() is not None
    assert context.is_dry_run is False


async def test_get_param(context: WorkflowContext) -> None:
    assert context.get_param("a") == 1
    assert context.get_param("b") is None
    assert context.get_param("b", 5) == 5


async def test_get_output(context: WorkflowContext) -> None:
    assert context.get_output("first") == {"n": 1, "none": None, "list": [1, 2]}
    assert context.get_output("first", "n") == 1
    assert context.get_output("first", "missing") is None
    assert context.get_output("first", "missing", 9) == 9
    assert context.get_output("nowhere") is None
    assert context.get_output("nowhere", default={}) == {}
    assert context.get_output("nowhere", "n", 7) == 7
    assert context.has_output("first")
    assert not context.has_output("nowhere")


async def test_a_stored_none_is_not_the_default(context: WorkflowContext) -> None:
    assert context.get_output("first", "none", "default") is None


@pytest.mark.parametrize("field", ["run_id", "workflow_name", "params", "outputs", "metadata", "partition"])
async def test_fields_cannot_be_set(context: WorkflowContext, field: str) -> None:
    with pytest.raises(CHANGE_REFUSED):
        setattr(context, field, {})


async def test_with_params_merges_into_a_new_context(context: WorkflowContext) -> None:
    changed = context.with_params({"a": 2, "b": 3})
    assert dict(changed.params) == {"a": 2, "b": 3}
    assert dict(context.params) == {"a": 1}
    assert changed.run_id == context.run_id
    assert changed.get_output("first", "n") == 1


async def test_with_output_makes_a_new_context(context: WorkflowContext) -> None:
    left = context.with_output("second", {"side": "left"})
    right = context.with_output("second", {"side": "right"}).with_output("first", {"n": 2})
    assert left.get_output("second") == {"side": "left"}
    assert right.get_output("second") == {"side": "right"}
    assert (left.get_output("first", "n"), right.get_output("first", "n")) == (1, 2)
    assert not context.has_output("second")
    assert context.get_output("first", "n") == 1
    assert set(left.outputs) == {"first", "second"}
    assert len(right.outputs) == 2


async def test_with_quality_and_with_metadata(context: WorkflowContext) -> None:
    metrics = QualityMetrics(record_count=4, valid_count=3)
    changed = context.with_quality("first", metrics).with_metadata({"source": "ftp"})
    assert changed.get_quality("first") == metrics
    assert changed.metadata["source"] == "ftp"
    assert context.get_quality("first") is None
    assert "source" not in context.metadata


async def test_a_context_survives_to_dict_and_from_dict(context: WorkflowContext) -> None:
    full = context.with_quality("first", QualityMetrics(record_count=4, valid_count=3)).with_metadata({"m": [1]})
    again = WorkflowContext.from_dict(full.to_dict())
    assert again.to_dict() == full.to_dict()
    assert again.run_id == "r1"
    assert again.workflow_name == "demo"
    assert dict(again.params) == {"a": 1}
    assert dict(again.partition or {}) == {"day": "2026-01-02"}
    assert again.get_output("first", "list") == [1, 2]
    assert again.get_quality("first") == full.get_quality("first")
    assert again.metadata["m"] == [1]
    assert again.started_at == full.started_at


async def test_a_new_context_does_not_copy_the_outputs_of_the_old_one(context: WorkflowContext) -> None:
    for number in range(5_000):
        context = context.with_output(f"step{number}", {"n": number})
    kept = []
    tracemalloc.start()
    try:
        for number in range(100):
            context = context.with_output(f"late{number}", {"n": number})
            kept.append(context)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 4_000_000, "a hundred dicts of 5,000 entries would be some 20 MB"
    assert kept[0].get_output("step17", "n") == 17
    assert kept[-1].get_output("late0", "n") == 0
    assert not kept[0].has_output("late1")


async def test_the_context_of_a_step(runner: WorkflowRunner) -> None:
    seen: list[WorkflowContext] = []

    async def looks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        seen.append(context)

    result = await runner.execute(Workflow("demo", [Step.lambda_("first", looks), Step.lambda_("second", looks)]))
    assert [context.step_name for context in seen] == ["first", "second"]
    assert {context.run_id for context in seen} == {result.run_id}
    assert {context.workflow_name for context in seen} == {"demo"}
    assert seen[0].attempt == seen[1].attempt
    assert seen[0].idempotency_key
    assert seen[0].idempotency_key != seen[1].idempotency_key
    assert not seen[0].metadata.get("resumed")


async def test_what_a_step_does_to_its_context_stays_there(runner: WorkflowRunner) -> None:
    """A run that was interrupted reads outputs afresh: one that was not must see the same."""

    async def spoils(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        for spoil in (
            lambda: context.get_output("first")["list"].append(9),
            lambda: context.get_output("first").update(n=9),
            lambda: context.params.update(a=9),  # type: ignore[attr-defined]
            lambda: context.params["nested"]["deep"].append(9),
        ):
            try:
                spoil()
            except CHANGE_REFUSED:
                continue

    async def reads(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"output": context.get_output("first"), "params": dict(context.params)}

    steps = [Step.lambda_("first", one), Step.lambda_("spoils", spoils), Step.lambda_("reads", reads)]
    params = {"a": 1, "nested": {"deep": [1]}}
    result = await runner.execute(Workflow("demo", steps), params=params)
    assert result.context.get_output("reads") == {
        "output": {"n": 1, "none": None, "list": [1, 2]},
        "params": {"a": 1, "nested": {"deep": [1]}},
    }
    assert params == {"a": 1, "nested": {"deep": [1]}}


async def test_what_was_returned_is_fixed_when_the_step_returns(runner: WorkflowRunner) -> None:
    shared: dict[str, Any] = {"rows": [1]}

    async def returns(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return shared

    async def changes(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        shared["rows"].append(2)

    result = await runner.execute(Workflow("demo", [Step.lambda_("a", returns), Step.lambda_("b", changes)]))
    assert result.context.get_output("a") == {"rows": [1]}
