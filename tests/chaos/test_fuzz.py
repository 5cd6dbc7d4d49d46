"""Random inputs, and stored rows that are corrupted at random."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from spine_async import SpineError, Step, StepResult, Workflow, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore
from tests.chaos.diary import ListDiary
from tests.chaos.size import SEED, draws, report, size
from tests.chaos.stories import Story

TEXT = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(
    ["\x00", "\ud800", "a/b", "../x", "%", "'--", ""]
)
NUMBER = st.integers() | st.floats() | st.integers(min_value=10**300, max_value=10**310)
ODD = st.sampled_from([object(), b"bytes", {1, 2}, 1j, range(3), Exception("x"), print, math.nan, -math.inf, ...])
VALUE: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | NUMBER
    | TEXT
    | st.datetimes()
    | st.decimals()
    | st.uuids()
    | st.binary(max_size=5)
    | ODD,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.integers(), inner, max_size=4) | st.tuples(inner, inner)
    ),
    max_leaves=12,
)
STRICT: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)
PATIENCE = 5.0


def fuzzed(count: int) -> Callable[[Any], Any]:
    options = settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=False
    )
    return lambda function: seed(SEED)(options(function))


async def tolerated(work: Awaitable[Any]) -> Any:
    """The result of the work, or the `SpineError` that it raises; another exception or a hang fails the test."""
    with anyio.fail_after(PATIENCE):
        try:
            return await work
        except SpineError as exc:
            str(exc)
            return exc


@fuzzed(size(150, 8_000))
@given(run_id=VALUE, params=VALUE, output=VALUE, updates=VALUE)
def test_inputs(run_id: Any, params: Any, output: Any, updates: Any) -> None:
    async def play() -> None:
        store = MemoryRunStore()
        runner = WorkflowRunner(store=store, config=WorkflowRunnerConfig(trace_enabled=False))
        flow = Workflow("fuzz", [Step.lambda_("one", lambda context, config: StepResult.ok(output, updates))])
        result = await tolerated(runner.execute(flow, params=params, run_id=run_id))
        if isinstance(result, SpineError):
            return
        again = await tolerated(runner.execute(flow, params=params, run_id=result.run_id))
        assert not isinstance(again, SpineError), again
        assert again.status == result.status
        assert repr(again.context.to_dict()["outputs"]) == repr(result.context.to_dict()["outputs"])
        for look in (runner.get_run, runner.list_checkpoints):
            assert not isinstance(await tolerated(look(result.run_id)), SpineError)
        for wrong in (run_id, output):
            for ask in (runner.get_run, runner.resume, runner.stop, runner.delete_run):
                await tolerated(ask(wrong))

    asyncio.run(play())


@fuzzed(size(40, 4_000))
@given(params=st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), STRICT, max_size=4), output=STRICT)
def test_stored_values_are_read_back_unchanged(sqlite_memory: Any, params: Any, output: Any) -> None:
    flow = Workflow("fuzz", [Step.lambda_("one", lambda context, config: StepResult.ok(output))])

    async def play() -> None:
        async with WorkflowRunner(config=sqlite_memory) as runner:
            result = await runner.execute(flow, params=params)
            assert result.status == "completed", result.error
            stored = await runner.execute(flow, params=params, run_id=result.run_id)
            assert same(dict(stored.context.params), params)
            assert same(stored.context.get_output("one"), output)
            assert same(dict((await runner.get_run(result.run_id)).params or {}), params)

    asyncio.run(play())


@pytest.fixture(scope="module")
def sqlite_memory(tmp_path_factory: pytest.TempPathFactory) -> WorkflowRunnerConfig:
    file = tmp_path_factory.mktemp("fuzz") / "fuzz.db"
    return WorkflowRunnerConfig(database_url=f"sqlite:///{file}", trace_enabled=False)


def same(one: Any, other: Any) -> bool:
    """Whether both are equal and all parts have the same types; 1, 1.0 and True differ."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


JUNK: tuple[Any, ...] = (
    None,
    "",
    "null",
    "[]",
    "{}",
    "{",
    '"',
    "1",
    0,
    -1,
    2**62,
    1.5,
    b"\xff\xfe",
    "\x00",
    "é" * 50,
    "[[[[",
    "NaN",
    '{"a":1,"a":2}',
    "each[0]",
    "each[x]/a",
    "a/b/c",
    "running",
    "nonsense",
    '{"until":1}',
    '{"next_step":"nowhere"}',
    "2020-01-01",
    "2020-01-01T00:00:00.000000Z",
    '{"__class__":"os.system"}',
    "9" * 400,
    "[" * 5000,
    "each[0]/a#2",
    "@until",
    "@resume#1",
)
TABLES = ("core_workflow_runs", "core_workflow_steps", "core_workflow_event_log")


@pytest.mark.anyio
async def test_rows_corrupted_by_hand(tmp_path: Path) -> None:
    count = size(40, 8_000)
    draw = draws("corrupted")
    template = tmp_path / "template.db"
    await _template(template)
    whole = template.read_bytes()
    raised: Counter[str] = Counter()
    problems: list[str] = []
    for _ in range(count):
        file = tmp_path / "damaged.db"
        for stale in tmp_path.glob("damaged.db*"):
            stale.unlink()
        file.write_bytes(whole)
        damage = _damaged(file, draw)
        for name, outcome in (await _looked_at(file, draw)).items():
            raised[outcome] += 1
            if outcome.startswith("!"):
                problems.append(f"{damage}: {name}: {outcome}")
    report("corrupted rows", n=count, raised=dict(raised.most_common(12)))
    assert not problems, "\n".join(sorted(set(problems))[:40]) + f"\n… {len(problems)} in all"


async def _template(file: Path) -> None:
    """A completed, a stopped and a failed run in one file."""
    async with WorkflowRunner(config=_config(file), dispatcher=None) as runner:
        await runner.execute(_flow(), params={"ends": "completed"}, run_id="completed")
        await runner.execute(_flow(), params={"ends": "stopped"}, run_id="stopped")
        await runner.execute(_flow(), params={"ends": "failed"}, run_id="failed")


def _flow() -> Workflow:
    story = Story(ListDiary())

    def turn(context: Any, config: Any) -> StepResult:
        if not context.metadata["resumed"] and context.params["ends"] == "failed":
            return StepResult.fail("broken")
        return StepResult.stop("enough") if context.params["ends"] == "stopped" else StepResult.ok({"n": 1}, {"n": 1})

    inner = Workflow("item", [story.step("a", lambda context: {"a": 1}), story.step("b", lambda context: {"b": 2})])
    return Workflow(
        "damaged",
        [
            story.step("fetch", lambda context: StepResult.ok({"rows": [1, 2]}, {"u": 1})),
            Step.map("each", items=[1, 2], iterator=inner),
            Step.choice("go", lambda context: True, "pause"),
            Step.wait("pause", seconds=0.001),
            Step.lambda_("turn", turn),
            story.step("last", lambda context: {"l": context.get_output("each", "succeeded")}),
        ],
    )


def _config(file: Path) -> WorkflowRunnerConfig:
    return WorkflowRunnerConfig(database_url=f"sqlite:///{file}", trace_enabled=False, default_step_timeout=2)


def _damaged(file: Path, draw: Any) -> str:
    """Overwrite one cell of one row; returns which, and with which value."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        while True:
            table = draw.choice(TABLES)
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            column, junk = draw.choice(columns), draw.choice(JUNK)
            keys = [row[0] for row in connection.execute(f"SELECT {_key(table)} FROM {table}")]
            key = draw.choice(keys)
            try:
                connection.execute(f'UPDATE {table} SET "{column}" = ? WHERE {_key(table)} = ?', (junk, key))
            except (sqlite3.Error, OverflowError):
                continue  # a constraint of the table refuses the value
            return f"{table}.{column} = {str(junk)[:30]!r}"


def _key(table: str) -> str:
    return "run * 1000 + seq" if table == TABLES[2] else "rowid"


async def _looked_at(file: Path, draw: Any) -> dict[str, str]:
    async with WorkflowRunner(config=_config(file), workflows=[_flow()]) as runner:
        looks: dict[str, Callable[[], Awaitable[Any]]] = {"list_runs": runner.list_runs}
        for run in ("completed", "stopped", "failed"):
            looks[f"get_run {run}"] = partial(runner.get_run, run)
            looks[f"checkpoints {run}"] = partial(runner.list_checkpoints, run)
            looks[f"events {run}"] = partial(_events, runner, run)
            looks[f"execute {run}"] = partial(runner.execute, _flow(), params={"ends": run}, run_id=run)
            looks[f"resume {run}"] = partial(runner.resume, run)
        return {name: await _outcome(look) for name, look in looks.items()}


async def _events(runner: WorkflowRunner, run: str) -> list[Any]:
    return [event async for event in runner.events(run)]


async def _outcome(look: Callable[[], Awaitable[Any]]) -> str:
    try:
        with anyio.fail_after(PATIENCE):
            await look()
    except SpineError as exc:
        return type(exc).__name__
    except Exception as exc:
        return f"!{type(exc).__name__}: {str(exc)[:100]}"
    return "ok"
