"""Listing and counting runs: filters, pages and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from spine_async import DefinitionError, RunFilters, RunStatus, Step, StepResult, Workflow, WorkflowContext
from spine_async import WorkflowRunner as Runner
from spine_async._model.run_filter import RunCursor, end_of_prefix

pytestmark = pytest.mark.anyio


async def work(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
    if context.params.get("fails"):
        return StepResult.fail("no such table", "DATA_QUALITY")
    return StepResult.stop("closed today") if context.params.get("stops") else StepResult.ok({"n": 1})


FLOW = Workflow("flow", [Step.lambda_("a", work)])
OTHER = Workflow("other", [Step.lambda_("a", work)])


@pytest.fixture
async def runner(open_runner: Any) -> Runner:
    runner: Runner = await open_runner(work=False)
    await runner.execute(FLOW, params={"n": 1}, partition={"day": "d", "n": 1}, run_id="a1")
    await runner.execute(FLOW, params={"fails": True}, partition={"day": "d", "n": 2}, run_id="a2")
    await runner.execute(OTHER, params={"stops": True}, run_id="b1")
    await runner.enqueue(OTHER, run_id="b2", queue="mail", key="tenant-7")
    return runner


async def ids(runner: Runner, **filters: Any) -> list[str]:
    return [run.run_id for run in await runner.list_runs(**filters)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["b2", "b1", "a2", "a1"]),
        ({"order": "oldest"}, ["a1", "a2", "b1", "b2"]),
        ({"workflow_name": "flow"}, ["a2", "a1"]),
        ({"status": RunStatus.FAILED}, ["a2"]),
        ({"status": "pending", "workflow_name": "other"}, ["b2"]),
        ({"queue": "mail"}, ["b2"]),
        ({"key": "tenant-7"}, ["b2"]),
        ({"key": "tenant-8"}, []),
        ({"partition": {"day": "d"}}, ["a2", "a1"]),
        ({"partition": {"day": "d", "n": 2}}, ["a2"]),
        ({"partition": {"day": "e"}}, []),
        ({"partition": {}}, ["b2", "b1", "a2", "a1"]),
        ({"stop_reason": "closed today"}, ["b1"]),
        ({"stop_reason": "a\x00b"}, []),
        ({"error_category": "DATA_QUALITY"}, ["a2"]),
        ({"run_id_prefix": "b"}, ["b2", "b1"]),
        ({"run_id_prefix": ""}, ["b2", "b1", "a2", "a1"]),
        ({"run_id_prefix": "b", "order": "oldest", "limit": 1}, ["b1"]),
        ({"parent_run_id": "a1"}, []),
        ({"queue": None, "partition": None, "status": None}, ["b2", "b1", "a2", "a1"]),
    ],
)
async def test_filters(runner: Runner, filters: dict[str, Any], expected: list[str]) -> None:
    assert await ids(runner, **filters) == expected
    counted = {name: value for name, value in filters.items() if name not in {"order", "limit"}}
    counts = await runner.count_runs(**counted)
    assert list(counts) == list(RunStatus)
    assert sum(counts.values()) == len(await ids(runner, **counted))


async def test_times(runner: Runner) -> None:
    first, second, third, _ = await runner.list_runs(order="oldest")
    assert await ids(runner, created_after=second.created_at) == ["b2", "b1", "a2"]
    assert await ids(runner, created_before=second.created_at) == ["a1"]
    assert first.completed_at is not None
    assert third.completed_at is not None
    assert await ids(runner, ended_after=first.completed_at, ended_before=third.completed_at) == ["a2", "a1"]
    elsewhere = third.completed_at.astimezone(timezone(timedelta(hours=9)))
    assert await ids(runner, ended_after=elsewhere) == ["b1"]


async def test_counts_stop_at_the_limit(runner: Runner) -> None:
    assert await runner.count_runs() == dict.fromkeys(RunStatus, 0) | {
        "completed": 1,
        "failed": 1,
        "stopped": 1,
        "pending": 1,
    }
    for number in range(3):
        await runner.execute(FLOW, run_id=f"c{number}")
    assert (await runner.count_runs(limit=2))[RunStatus.COMPLETED] == 2
    assert (await runner.count_runs(limit=2, run_id_prefix="c"))[RunStatus.COMPLETED] == 2


async def test_params_are_read_on_request(runner: Runner) -> None:
    assert [run.params for run in await runner.list_runs(workflow_name="flow")] == [None, None]
    found = await runner.list_runs(workflow_name="flow", with_params=True)
    assert [run.params for run in found] == [{"fails": True}, {"n": 1}]
    assert (await runner.get_run("a1")).params == {"n": 1}


@pytest.mark.parametrize("order", ["newest", "oldest"])
async def test_a_cursor_continues_behind_a_run_that_was_deleted(runner: Runner, order: Any) -> None:
    whole = await ids(runner, order=order)
    first, second = await runner.list_runs(order=order, limit=2)
    for each in (first, second):
        await runner.delete_run(each.run_id, force=True)
    assert await ids(runner, order=order, cursor=second.cursor) == whole[2:]
    assert (await runner.get_run(whole[2])).cursor == (await runner.list_runs(order=order))[0].cursor


async def test_a_cursor_that_is_none_of_a_record_is_refused(runner: Runner) -> None:
    cursor = (await runner.list_runs(limit=1))[0].cursor
    for wrong in ("", "b2", cursor[:-1], cursor[1:], cursor + "A", cursor[:4] + "AAAA" + cursor[8:], 5, "é" * 20):
        with pytest.raises(ValueError, match="cursor is not valid; pass the unchanged `cursor` of a record"):
            await runner.list_runs(cursor=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"status": "finished"}, "finished"),
        ({"queue": 5}, "queue is of type int; it must be a string"),
        ({"key": "a\x00b"}, "key contains a NUL"),
        ({"run_id_prefix": "\ud800"}, "run_id_prefix contains"),
        ({"created_after": "2026-01-01"}, "created_after is of type str; it must be an aware datetime"),
        ({"ended_before": datetime(2026, 1, 1)}, "ended_before has no time zone"),  # noqa: DTZ001 - the point of it
        ({"partition": "day"}, "partition is of type str"),
        ({"partition": {"x": object()}}, "partition"),
    ],
)
async def test_a_filter_that_is_wrong_is_named(runner: Runner, filters: Any, message: str) -> None:
    for call in (runner.list_runs, runner.count_runs):
        with pytest.raises(ValueError, match=message):
            await call(**filters)


async def test_an_unknown_filter_is_named(runner: Runner) -> None:
    with pytest.raises(TypeError, match="there is no filter 'workflow'; the filters are workflow_name, status, queue"):
        await runner.list_runs(workflow="flow")  # type: ignore[call-arg]


@pytest.mark.parametrize("limit", [0, -1, 1_000_001])
async def test_a_count_has_a_limit(runner: Runner, limit: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1,000,000"):
        await runner.count_runs(limit=limit)
    with pytest.raises(DefinitionError, match="limit is of type str"):
        await runner.count_runs(limit="5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order is 'up'"):
        await runner.list_runs(order="up")  # type: ignore[arg-type]


def test_the_filters_have_a_type() -> None:
    filters: RunFilters = {"workflow_name": "flow", "status": "failed"}
    assert filters.keys() <= RunFilters.__annotations__.keys()


def test_a_cursor_survives_its_text() -> None:
    for cursor in (
        RunCursor(datetime(2026, 1, 1, 2, 3, 4, 5, tzinfo=UTC), 7),
        RunCursor(datetime.min.replace(tzinfo=UTC), 0),
    ):
        assert RunCursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    ("prefix", "end"), [("ab", "ac"), ("a\U0010ffff", "b"), ("\U0010ffff", None), ("\ud7ff", "\ue000")]
)
def test_the_end_of_a_prefix(prefix: str, end: str | None) -> None:
    assert end_of_prefix(prefix) == end
