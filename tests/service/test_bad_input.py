"""Each bad argument is a clear error that names it, and stores nothing."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spine_async import (
    DefinitionError,
    Enqueued,
    Queue,
    RateLimit,
    ScheduleNotFoundError,
    SpineError,
    Step,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from tests.service.flows import Config
from tests.service.places import Place


async def nothing(context: WorkflowContext, config: Config) -> None:
    return None


FLOW = Workflow("flow", [Step.lambda_("step", nothing)])
LATER = datetime(2099, 1, 1, tzinfo=UTC)

RUN_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("delay", {"delay": -1}),
    ("delay", {"delay": -0.001}),
    ("delay", {"delay": timedelta(seconds=-1)}),
    ("delay", {"delay": math.nan}),
    ("delay", {"delay": math.inf}),
    ("delay", {"delay": 1e300}),
    ("delay", {"delay": "5"}),
    ("delay", {"delay": True}),
    ("at", {"at": LATER.replace(tzinfo=None)}),
    ("at", {"at": LATER.isoformat()}),
    ("at", {"at": LATER.timestamp()}),
    ("at", {"at": LATER.date()}),
    ("delay", {"delay": 1, "at": LATER}),
    ("at", {"delay": 0, "at": LATER}),
    ("expires", {"expires": 0}),
    ("expires", {"expires": -1}),
    ("expires", {"expires": timedelta(0)}),
    ("expires", {"expires": math.nan}),
    ("expires", {"expires": "soon"}),
    ("expires", {"expires": 1e300}),
    ("priority", {"priority": 1.5}),
    ("priority", {"priority": "1"}),
    ("priority", {"priority": True}),
    ("priority", {"priority": None}),
    ("priority", {"priority": 2**40}),
    ("key", {"key": ""}),
    ("key", {"key": 5}),
    ("key", {"key": "k" * 10_000}),
    ("key", {"key": "a\x00b"}),
    ("id", {"run_id": ""}),
    ("id", {"run_id": "a\x00b"}),
    ("param", {"params": {"ratio": math.nan}}),
    ("param", {"params": ["a"]}),
    ("param", {"params": {1: "a"}}),
    ("partition", {"partition": ["a"]}),
]

QUEUES: list[object] = ["", 5, None, "a\x00b", "q" * 10_000, Queue("mail")]
WORKFLOWS: list[object] = ["", None, 5, nothing, "a\x00b", Workflow(steps=FLOW.steps)]


def cases(options: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    return [pytest.param(name, option, id=f"{name}{number}") for number, (name, option) in enumerate(options)]


async def check_nothing_is_stored(runner: WorkflowRunner) -> None:
    assert await runner.list_runs() == []


@pytest.mark.parametrize(("name", "options"), cases(RUN_OPTIONS))
@pytest.mark.parametrize("how", ["workflow", "name", "many"])
async def test_options_of_a_run(name: str, options: dict[str, Any], how: str) -> None:
    runner = Place(None).runner()
    call: Any
    if how == "many":
        call = runner.enqueue_many(FLOW, [Enqueued(), Enqueued(**options)])
    else:
        call = runner.enqueue(FLOW if how == "workflow" else "flow", **options)
    with pytest.raises(SpineError, match=name):
        await call
    await check_nothing_is_stored(runner)


@pytest.mark.parametrize("queue", QUEUES, ids=range(len(QUEUES)))
async def test_queues(queue: Any) -> None:
    runner = Place(None).runner()
    with pytest.raises(SpineError, match="queue"):
        await runner.enqueue(FLOW, queue=queue)
    with pytest.raises(SpineError, match="queue"):
        await runner.enqueue_many(FLOW, [Enqueued()], queue=queue)
    await check_nothing_is_stored(runner)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=range(len(WORKFLOWS)))
async def test_workflows(workflow: Any) -> None:
    runner = Place(None).runner()
    with pytest.raises(SpineError, match="workflow"):
        await runner.enqueue(workflow)
    with pytest.raises(SpineError, match="workflow"):
        await runner.enqueue_many(workflow, [Enqueued()])
    await check_nothing_is_stored(runner)


@pytest.mark.parametrize("runs", [None, 5, [None], [{"params": {}}], ["r1"], Enqueued()], ids=range(6))
async def test_runs_of_enqueue_many(runs: Any) -> None:
    runner = Place(None).runner()
    with pytest.raises((SpineError, TypeError), match=r"Enqueued|iterable"):
        await runner.enqueue_many(FLOW, runs)
    await check_nothing_is_stored(runner)


@pytest.mark.parametrize("queues", ["mail", [5], [""], [Queue("a"), "a"], 5], ids=range(5))
async def test_queues_of_a_runner(queues: Any) -> None:
    with pytest.raises(SpineError, match="queue"):
        Place(None).runner(queues=queues)


BAD_LIMITS: list[dict[str, Any]] = [
    {option: value} for option in ("concurrency", "per_process", "per_key") for value in (0, -1, 1.5, True, "5")
]


@pytest.mark.parametrize("limits", [*BAD_LIMITS, {"rate": 5}, {"rate": (100, 60)}], ids=str)
def test_limits_of_queues(limits: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=f"queue 'mail': {next(iter(limits))} is "):
        Queue("mail", **limits)


@pytest.mark.parametrize(("runs", "per"), [(0, 1), (True, 1), ("5", 1), (5, 0), (5, -1), (5, "s"), (5, math.nan)])
def test_rates_of_queues(runs: Any, per: Any) -> None:
    with pytest.raises(DefinitionError, match=r"RateLimit: (runs|per)"):
        RateLimit(runs, per)


def test_a_rate_takes_a_timedelta() -> None:
    assert RateLimit(100, per=timedelta(minutes=1)) == RateLimit(100, per=60)


@pytest.mark.parametrize("name", ["", None, 5, "a\x00b"], ids=repr)
def test_names_of_queues(name: Any) -> None:
    with pytest.raises(SpineError, match="queue"):
        Queue(name)


@pytest.mark.parametrize("timeout", [-1, math.nan, "1"], ids=repr)
async def test_timeouts_of_result(timeout: Any) -> None:
    runner = Place(None).runner(work=False)
    handle = await runner.enqueue(FLOW)
    with pytest.raises(DefinitionError, match="timeout"):
        await handle.result(timeout=timeout)


async def test_options_on_a_database(database: Place) -> None:
    """The same checks stand before every store; the limits of a database are checked before anything is written."""
    async with database.runner(work=False) as runner:
        for name, options in RUN_OPTIONS:
            with pytest.raises(SpineError, match=name):
                await runner.enqueue(FLOW, **options)
        for options in ({"delay": 10**9}, {"at": datetime.max.replace(tzinfo=UTC)}, {"priority": 2**31 - 1}):
            record = await (await runner.enqueue(FLOW, **options)).record()
            assert record.due_at is not None
        assert len(await runner.list_runs()) == 3
        odd = await runner.enqueue("é " * 20, key="ключ 🔑", queue="очередь")
        record = await odd.record()
        assert (record.workflow_name, record.key, record.queue) == ("é " * 20, "ключ 🔑", "очередь")


async def test_numbers_and_names_that_a_database_cannot_hold(place: Place) -> None:
    """The answer is the same in memory and on each database."""
    async with place.runner(work=False) as runner:
        await runner.execute(FLOW, run_id="r")
        for after in (2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**30):
            assert await runner.list_visits("r", after=after) == []
            assert await runner.list_visits("r", after=after, with_values=True) == []
            assert await runner.list_checkpoints("r", after=after) == []
            for follow in (False, True):
                assert [each async for each in runner.events("r", after, follow)] == []
        assert len(await runner.list_visits("r", after=-(10**30))) == 1
        for name in ("a\ud800b", "a\0b", "", "s" * 10_000):
            for call in (runner.pause_schedule, runner.resume_schedule, runner.trigger_schedule):
                with pytest.raises(ScheduleNotFoundError):
                    await call(name)


async def test_enqueue_without_a_store() -> None:
    for runner in (WorkflowRunner(checkpoint_enabled=False), WorkflowRunner(dry_run=True, checkpoint_enabled=False)):
        with pytest.raises(SpineError):
            await runner.enqueue(FLOW)
