"""Timelines of runs, from the events of real runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from spine_async import Event, RetryPolicy, Step, StepError, Workflow, WorkflowContext, WorkflowRunner
from spine_async.storage import MemoryRunStore
from spine_async.views.step_kind import kind_at
from spine_async.views.timeline import Timeline, TimelineRow
from spine_async.views.visit_state import VisitState

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


async def work(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    context.progress(1, 3, "reading")
    return {"numbers": [1, 2, 3]}


async def flaky(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    if context.attempt < 3:
        raise StepError("busy", category="TRANSIENT")
    return {}


async def second_item_fails(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    if context.params["number"] == 2 and context.params["fails"]:
        raise ValueError("bad number")
    return {}


inner = Workflow("inner", [Step.lambda_("first", work), Step.wait("pause", 0.001)])
every_kind = Workflow(
    "every kind",
    [
        Step.lambda_("load", work),
        Step.lambda_("flaky", flaky, retry=RetryPolicy(delays=[0.001, 0.001])),
        Step.parallel("both", {"left": work, "right": inner}),
        Step.workflow("child", inner),
        Step.choice("go", lambda context: True, "each", "skipped"),
        Step.lambda_("skipped", work),
        Step.map(
            "each",
            items_path="load.numbers",
            item_param="number",
            iterator=Workflow(steps=[Step.lambda_("check", second_item_fails), Step.lambda_("keep", work)]),
            max_concurrency=1,
        ),
    ],
)


async def timeline_of(runner: WorkflowRunner, run_id: str, **options: Any) -> Timeline:
    timeline = Timeline(**options)
    async for event in runner.events(run_id):
        timeline.add(event)
    return timeline


def by_path(rows: list[TimelineRow]) -> dict[str, TimelineRow]:
    return {row.path: row for row in rows}


def event(seq: int, event_type: str, path: str | None, second: float = 0.0, **metadata: object) -> Event:
    name = path.rpartition("/")[2].partition("#")[0] if path else None
    return Event("run", seq, event_type, name, path, BEGAN + timedelta(seconds=second), metadata)


def rows_of(*events: Event, now: float = 10.0, **options: Any) -> list[TimelineRow]:
    timeline = Timeline()
    for each in events:
        timeline.add(each)
    return timeline.rows(BEGAN + timedelta(seconds=now), **options)


async def test_a_run_that_fails_and_is_resumed() -> None:
    runner = WorkflowRunner(store=MemoryRunStore(), workflows=[every_kind])
    failed = await runner.execute(every_kind, params={"fails": True}, run_id="run")
    assert failed.status == "failed"
    found = by_path((await timeline_of(runner, "run", plan=every_kind.plan())).rows(datetime.now(UTC)))

    assert [path for path, row in found.items() if row.depth == 0] == [
        "load", "flaky", "both", "child", "go", "skipped", "each",
    ]  # fmt: skip
    assert {path: row.kind for path, row in found.items() if row.depth == 0} == {
        "load": "lambda", "flaky": "lambda", "both": "parallel", "child": "workflow", "go": "choice",
        "skipped": "lambda", "each": "map",
    }  # fmt: skip
    assert found["flaky"].attempt == 3
    assert found["flaky"].error is None
    assert found["skipped"].status == "skipped"
    assert found["skipped"].error == "go went past it"
    assert (found["both"].entries_completed, found["both"].entries_failed) == (2, 0)
    assert found["both[right]/pause"].kind == "wait"
    assert found["child/first"].depth == 1
    assert found["load"].progress is not None
    assert found["load"].progress.message == "reading"
    assert found["each[1]/check"].error == "ValueError: bad number"
    assert found["each"].status == "failed"
    assert (found["each"].entries_completed, found["each"].entries_failed) == (1, 1)
    assert all(row.duration >= 0 and row.start >= 0 for row in found.values())
    assert list(found).index("both[left]/left") == list(found).index("both") + 1

    resumed = await runner.resume("run", params_override={"fails": False})
    assert resumed.status == "completed"
    found = by_path((await timeline_of(runner, "run")).rows(datetime.now(UTC)))
    assert {row.status for row in found.values()} == {VisitState.COMPLETED, VisitState.SKIPPED}
    assert (found["each"].entries_completed, found["each"].entries_failed) == (3, 0)
    assert {path: found[path].kind for path in ("both", "child", "each", "child/pause")} == {
        "both": "parallel", "child": "workflow", "each": "map", "child/pause": "wait",
    }  # fmt: skip


def test_a_running_visit_lasts_until_now() -> None:
    (row,) = rows_of(event(1, "workflow_started", None), event(2, "step_started", "load", 2.0))
    assert (row.status, row.start, row.duration, row.attempt) == (VisitState.RUNNING, 2.0, 8.0, 1)
    assert row.status.is_open


def test_an_attempt_that_failed() -> None:
    failed = event(2, "step_retrying", "load", 1.0, attempt=1, delay=5.0, error="busy", error_category="TRANSIENT")
    (row,) = rows_of(event(1, "step_started", "load"), failed)
    assert (row.status, row.attempt, row.error, row.error_category) == ("retrying", 2, "busy", "TRANSIENT")


def test_what_a_visit_waits_for() -> None:
    until = "2026-01-02T00:00:00+00:00"
    rows = rows_of(
        event(1, "step_started", "pause", until=until),
        event(2, "step_started", "ask", signal="answer", until=None),
        event(3, "step_started", "ask_soon", signal="answer", until=until),
        event(4, "step_started", "other", child_run_id="run/other", queue="default"),
    )
    assert [(row.kind, row.waits_for) for row in rows] == [
        ("wait", f"until {until}"),
        ("signal", "signal answer"),
        ("signal", f"signal answer until {until}"),
        ("workflow", "run run/other"),
    ]
    assert {row.status for row in rows} == {VisitState.WAITING}


def test_a_wait_lasts_from_its_start_to_its_end() -> None:
    ended = event(2, "step_completed", "ask", 60.0, duration_ms=2.0, attempts=1, output_size=2)
    (row,) = rows_of(event(1, "step_started", "ask", signal="answer", until=None), ended)
    assert (row.status, row.duration) == ("completed", 60.0)


def test_a_crash_interrupts_what_ran_and_no_wait() -> None:
    crashed = [
        event(1, "step_started", "pause", until="2026-01-02T00:00:00+00:00"),
        event(2, "step_started", "load", 1.0),
        event(3, "workflow_resumed", None, 4.0),
    ]
    waiting, interrupted = rows_of(*crashed)
    assert (waiting.status, interrupted.status, interrupted.duration) == ("waiting", "interrupted", 3.0)
    again = rows_of(*crashed, event(4, "step_started", "load", 5.0))[1]
    assert (again.status, again.start, again.duration) == ("running", 5.0, 5.0)


def test_the_end_of_a_run_interrupts_its_waits() -> None:
    (row,) = rows_of(event(1, "step_started", "ask", signal="answer"), event(2, "workflow_stopped", None, 3.0))
    assert (row.status, row.duration, row.waits_for) == ("interrupted", 3.0, None)


def test_branches_that_were_cancelled() -> None:
    rows = rows_of(
        event(1, "step_started", "race"),
        event(2, "step_started", "race[slow]/slow"),
        event(3, "step_completed", "race", 1.0, duration_ms=1000.0, attempts=1),
    )
    assert [(row.path, row.status) for row in rows] == [("race", "completed"), ("race[slow]/slow", "interrupted")]


def test_a_large_map_is_shown_in_part() -> None:
    ends = [event(2 * n, "step_completed", f"each[{n}]/check", duration_ms=1.0, attempts=1) for n in range(1, 100)]
    failure = event(300, "step_failed", "each[100]/check", duration_ms=1.0, attempts=1, error="bad")
    rows = rows_of(event(1, "step_started", "each"), *ends, failure, max_inner=3)
    assert [row.path for row in rows] == ["each", "each[1]/check", "each[2]/check", "each[100]/check"]
    assert rows[0].hidden == 97


def test_compensations() -> None:
    (row,) = rows_of(event(1, "step_completed", "book~compensate", duration_ms=1.0, attempts=1))
    assert row.kind == "compensation"


def test_kinds_of_a_plan() -> None:
    plan = every_kind.plan()
    assert kind_at(plan, "each[7]/keep") == "lambda"
    assert kind_at(plan, "both[right]/pause#2") == "wait"
    assert kind_at(plan, "both[left]/left") == "lambda"
    assert kind_at(plan, "child/pause") == "wait"
    assert kind_at(plan, "load~compensate") == "compensation"
    assert kind_at(plan, "unknown") is None
    assert kind_at(plan, "load/unknown") is None


def test_events_of_handlers_are_ignored() -> None:
    assert rows_of(event(1, "token", "load", data={"text": "a"})) == []
