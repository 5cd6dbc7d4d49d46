"""The views that plain SQL reads, on both databases."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from pydantic_core import from_json, to_json

from spine_async._model.status import StepStatus
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.storage import MemoryRunStore, SqlRunStore
from spine_async.testing.conformance.rows import change, committed, created, event, new_run, visit

pytestmark = pytest.mark.anyio

NASTY: dict[str, object] = {
    "plain": 1,
    'quo"te': 'say "so" and \\ and \\"',
    "back\\slash": "\\u0000 is text here",
    'both\\"': {'in\\"ner': ["\\", '"']},
    "nul\x00key": "a\x00b",
    "nul\x00other": ["\x00", {"\x00": "\x00"}],
    "": "empty key",
    "a.b": [1, [2, {"c": None}]],
    "$.x[0]": True,
    "tab\tnewline\n": "line\nline\u2028",
    "ключ 🔑 é": "значение 🗝 \ufdd1",
    "big": 2**70,
    "negative": -(10**30),
    "third": 0.1 + 0.2,
    "tiny": 5e-324,
    "large": 1.7976931348623157e308,
    "none": None,
    "no": False,
    "empty": {},
    "list": [],
}


def text(value: object) -> str:
    return to_json(value).decode()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlRunStore]:
    store = SqlRunStore(database_url)
    yield store
    await store.close()


@contextmanager
def cursor(url: str) -> Iterator[Any]:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.partition("///")[2])) as connection:
            yield connection.cursor()
    else:
        with psycopg.connect(url.replace("+asyncpg", "")) as connection:
            yield connection.cursor()


def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    with cursor(url) as reading:
        reading.execute(sql)
        return list(reading.fetchall())


def snapshots(url: str) -> dict[str, Any]:
    found = rows(url, "SELECT path, context_snapshot FROM core_workflow_checkpoints ORDER BY seq")
    for _, snapshot in found:
        json.loads(snapshot, object_pairs_hook=_without_repetition)
    return {path: from_json(snapshot) for path, snapshot in found}


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


async def run_of(store: SqlRunStore, visits: Sequence[VisitRow], **documents: Any) -> None:
    run = replace(new_run(), initial_outputs="{}", params="{}", partition=None)
    claim = await created(store, replace(run, **documents))
    await committed(store, change(claim, visits))


async def test_every_value_and_key_arrives_as_it_was(store: SqlRunStore, database_url: str) -> None:
    await run_of(
        store,
        [
            visit("first", 2, output=text(NASTY), quality=text({"custom_metrics": NASTY})),
            visit("second", 3, output=text("\x00"), updates=text(NASTY)),
            visit("quiet", 4, output=None),
        ],
        params=text({"a": 1, **NASTY}),
        initial_outputs=text(NASTY),
        initial_quality=text(NASTY),
        partition=text(NASTY),
    )
    quality = {**NASTY, "first": {"custom_metrics": NASTY}}
    outputs = {**NASTY, "first": NASTY}
    expected = {"params": {"a": 1, **NASTY}, "outputs": outputs, "quality": quality, "partition": NASTY}
    found = snapshots(database_url)
    assert found["first"] == expected
    assert found["second"] == {**expected, "outputs": {**outputs, "second": "\x00"}}
    assert found["quiet"] == found["second"]


async def test_numbers_keep_every_digit(store: SqlRunStore, database_url: str) -> None:
    exact = '{"n":123456789012345678901234567890,"f":0.10000000000000000555,"x y":-1.50e+10,"q\\"":1E400}'
    await run_of(store, [visit("a", 2, output=exact, updates=exact)], params=exact)
    ((snapshot,),) = rows(database_url, "SELECT context_snapshot FROM core_workflow_checkpoints")
    for digits in ("123456789012345678901234567890", "0.10000000000000000555", "-1.50e+10", "1E400"):
        assert snapshot.count(digits) == 2


async def test_later_visits_shadow_earlier_ones(store: SqlRunStore, database_url: str) -> None:
    await run_of(
        store,
        [
            visit("a", 2, output="1", updates='{"p":1,"q":1}'),
            visit("b", 3, output='{"b":1}'),
            visit("a#2", 4, output="2", updates='{"q":2}'),
            visit("override@1", 5, status=StepStatus.OVERRIDE, output=None, updates='{"p":"overridden"}'),
            visit("pause@until", 6, status=StepStatus.WAITING, output='"2026-01-01"'),
            visit("c", 7, status=StepStatus.SKIPPED, output=None, error="not today"),
            visit("d", 8, status=StepStatus.FAILED, output='{"half":true}', error="no"),
            visit("e", 9, output="5"),
        ],
        params='{"p":0,"r":0}',
        initial_outputs='{"a":0,"z":0}',
    )
    found = snapshots(database_url)
    assert list(found) == ["a", "b", "a#2", "c", "e"]
    assert found["a"]["params"] == {"p": 1, "q": 1, "r": 0}
    assert found["b"]["outputs"] == {"a": 1, "b": {"b": 1}, "z": 0}
    assert found["a#2"]["outputs"] == {"a": 2, "b": {"b": 1}, "z": 0}
    assert found["a#2"]["params"] == {"p": 1, "q": 2, "r": 0}
    assert found["c"]["params"] == {"p": "overridden", "q": 2, "r": 0}
    assert found["c"]["outputs"] == found["a#2"]["outputs"]
    assert found["e"]["outputs"] == {"a": 2, "b": {"b": 1}, "z": 0, "d": {"half": True}, "e": 5}


async def test_a_map_item_sees_its_parent_and_no_sibling(store: SqlRunStore, database_url: str) -> None:
    await run_of(
        store,
        [
            visit("load", 2, output='"outer"', updates='{"p":"outer"}'),
            visit("m[0]/load", 3, output='"item 0"', item_params='{"item":10,"p":"opened"}', updates='{"item":11}'),
            visit("m[1]/load", 4, output='"item 1"', item_params='{"item":20}'),
            visit("m[1]/in#2[5]/x", 5, output='"deep"', item_params='{"item":"inner"}', updates='{"p":"deep"}'),
            visit("m[10]/x", 6, output='"ten"'),
            visit("m[1]/last", 7, output=None),
            visit("override@1", 8, status=StepStatus.OVERRIDE, output=None, updates='{"p":"late","item":"late"}'),
            visit("m[0]/last", 9, output=None),
            visit("m", 10, output='"all"'),
            visit("m#2[0]/x", 11, output='"again"'),
        ],
    )
    found = {path: (each["params"], each["outputs"]) for path, each in snapshots(database_url).items()}
    assert found["m[0]/load"] == ({"p": "opened", "item": 11}, {"load": "item 0"})
    assert found["m[1]/load"] == ({"p": "outer", "item": 20}, {"load": "item 1"})
    assert found["m[1]/in#2[5]/x"] == ({"p": "deep", "item": "inner"}, {"load": "item 1", "x": "deep"})
    assert found["m[10]/x"] == ({"p": "outer"}, {"load": "outer", "x": "ten"})
    assert found["m[1]/last"] == ({"p": "outer", "item": 20}, {"load": "item 1"})
    assert found["m[0]/last"] == ({"p": "opened", "item": 11}, {"load": "item 0"})
    assert found["m"] == ({"p": "late", "item": "late"}, {"load": "outer", "m": "all"})
    assert found["m#2[0]/x"][1] == {"load": "outer", "m": "all", "x": "again"}


async def test_step_names_with_quotes_and_letters_of_any_script(store: SqlRunStore, database_url: str) -> None:
    name = 'größe "x" \\ 🗝'
    await run_of(
        store, [visit(name, 2, output="1"), visit(f"{name}#2", 3, output="2")], initial_outputs=text({name: 0})
    )
    assert [each["outputs"] for each in snapshots(database_url).values()] == [{name: 1}, {name: 2}]


async def test_a_checkpoint_describes_its_step(store: SqlRunStore, database_url: str) -> None:
    await run_of(store, [visit("m[0]/fetch#2", 2)])
    columns = "run_id, workflow_name, step_name, checkpoint_step, path, seq, step_type"
    found = rows(database_url, f"SELECT {columns} FROM core_workflow_checkpoints")
    assert found == [("run-1", "orders", "fetch", "fetch", "m[0]/fetch#2", 2, "lambda")]


def visits_of_all_kinds() -> list[VisitRow]:
    long = 'so "many"\nwords \\ and 🗝'
    return [
        visit("a", 3, started_seq=2, duration_ms=1 / 3, output_size=10**9, attempts=3),
        visit("b", 4, status=StepStatus.SKIPPED, error=long, output=None),
        visit("c", 5, status=StepStatus.SKIPPED, error=None, output=None),
        visit("d", 7, status=StepStatus.FAILED, error=long, error_category="INTERNAL", started_seq=6, duration_ms=1e22),
        visit("e", 8, status=StepStatus.FAILED, error=None, error_category=None, duration_ms=5e-7),
        visit("m[17]/f", 10, started_seq=9, item_seq=11, item_index=17, ends_item=True, duration_ms=0.0),
        visit("a[1]/b#2[3]/g#4", 13, item_seq=14, item_index=3, ends_item=True, duration_ms=123456.789),
        visit("größe 🗝[2]/h", 15, item_seq=16, status=StepStatus.SKIPPED, error="x", item_index=2),
        visit("i", 17, records_events=False),
        visit("pause@until", 18, status=StepStatus.WAITING, output='"x"'),
        visit("over@1", 19, status=StepStatus.OVERRIDE, output=None, updates="{}"),
    ]


def as_values(run_id: str, each: EventRow) -> tuple[object, ...]:
    return run_id, each.seq, str(each.event_type), each.step_name, each.path, from_json(each.metadata)


async def test_the_events_view_says_what_the_store_says(store: SqlRunStore, database_url: str) -> None:
    claim = await created(store)
    log = [event("step_retrying", 12, step="g", metadata='{"delay":1.5}'), event("workflow_resumed", 18)]
    await committed(store, change(claim, visits_of_all_kinds(), log))
    sql = "SELECT run_id, seq, event_type, step_name, path, metadata FROM core_workflow_events ORDER BY run_id, seq"
    found = [(*row[:5], from_json(row[5])) for row in rows(database_url, sql)]
    events = await store.events("run-1", 0, 1000)
    assert found == [as_values("run-1", each) for each in events]
    moments = rows(database_url, 'SELECT "timestamp" FROM core_workflow_events ORDER BY seq')
    shown = [each.timestamp.isoformat(timespec="microseconds")[:26] + "Z" for each in events]
    assert [each if isinstance(each, str) else f"{each:%Y-%m-%dT%H:%M:%S.%fZ}" for (each,) in moments] == shown


async def test_all_stores_return_the_same_events(store: SqlRunStore) -> None:
    memory = MemoryRunStore()
    for each in (store, memory):
        await committed(each, change(await created(each), visits_of_all_kinds(), [event("own", 12)]))
    assert await store.events("run-1", 0, 1000) == await memory.events("run-1", 0, 1000)
    assert await store.events("run-1", 10, 2) == await memory.events("run-1", 10, 2)


async def test_a_page_of_events_is_complete_whatever_the_order_of_numbers(store: SqlRunStore) -> None:
    """The number of a start may be far below that of its end, and the number of an item's end far above its visit's."""
    claim = await created(store)
    visits = [visit(f"m[{n}]/x", 12 + n, started_seq=11 - n, item_seq=22 + n, item_index=n) for n in range(10)]
    await committed(store, change(claim, visits))
    for after in range(32):
        for limit in (1, 3, 100):
            page = await store.events("run-1", after, limit)
            assert [each.seq for each in page] == list(range(after + 1, 32))[:limit]
