"""Packed visits are unpacked unchanged, for values of every kind, and use little memory."""

from __future__ import annotations

import random
import sys
import tracemalloc
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

import pytest

from spine_async import Step, StepResult, Workflow, WorkflowContext, WorkflowRunner
from spine_async._model.status import StepStatus, StepType
from spine_async._model.visit_row import VisitRow
from spine_async.storage import MemoryRunStore
from spine_async.storage.packing import PackedVisits

AT = datetime(2026, 11, 23, 8, 30, 1, 123456, tzinfo=UTC)


def entry(seq: int, **values: Any) -> VisitRow:
    """The last step of a map's item."""
    plain = VisitRow(
        path=f"each[{seq}]/item",
        step_name="item",
        step_type=StepType.LAMBDA,
        status=StepStatus.COMPLETED,
        attempts=1,
        started_at=AT + timedelta(microseconds=31 * seq),
        duration_ms=seq % 977 / 1000,
        output="null",
        output_size=4,
        updates=None,
        quality=None,
        item_index=seq,
        ends_item=True,
        item_params=f'{{"item":{seq}}}',
        scope=f"each[{seq}]",
        completed_at=AT + timedelta(microseconds=31 * seq + 977),
        seq=seq,
        started_seq=seq - 1,
        item_seq=seq + 1,
        epoch=1,
        commit_id="0123456789ab",
    )
    return replace(plain, **values)


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 2000])
def test_entries_come_back_as_they_were_and_in_order(count: int) -> None:
    rows = [entry(3 * number + 2) for number in range(count)]
    packed = PackedVisits()
    for start in range(0, count, 7):
        packed.extend(rows[start : start + 7])
    assert list(packed) == rows
    assert list(packed) == rows


def test_values_of_every_kind_come_back() -> None:
    draw = random.Random(1)
    texts = [None, "", "{}", "\x00", "\ud800", "ü" * 300, "☃", '"\\u0000"', "x" * 70_000]
    moments = [AT, AT.astimezone(), datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    rows = [
        entry(
            number + 1,
            step_type=draw.choice(list(StepType)),
            status=draw.choice(list(StepStatus)),
            attempts=draw.choice([0, 1, 2**40]),
            started_at=draw.choice(moments),
            duration_ms=draw.choice([0, 0.1 + 0.2, 1e-300, 1e300, sys.float_info.max, 5]),
            output=draw.choice(texts),
            updates=draw.choice(texts),
            quality=draw.choice(texts),
            error=draw.choice(texts),
            error_category=draw.choice([None, "INTERNAL"]),
            item_params=draw.choice(texts),
            item_index=draw.choice([None, 0, 10**9]),
            ends_item=draw.choice([True, False]),
            records_events=draw.choice([True, False]),
            started_seq=draw.choice([None, 0, 7]),
            item_seq=draw.choice([None, 1]),
        )
        for number in range(1500)
    ]
    packed = PackedVisits()
    packed.extend(rows)
    back = list(packed)
    assert back == rows
    assert [kinds(row) for row in back] == [kinds(row) for row in rows]


def kinds(row: VisitRow) -> list[type]:
    """The types of the values, of which some are equal to those of other types."""
    return [type(getattr(row, each.name)) for each in fields(row)]


class Name(StrEnum):
    """Names in an enum, as users define them."""

    ITEM = "item"


def test_names_that_are_members_of_an_enum_are_packed_as_what_they_say() -> None:
    """Marshal refuses them; no entry may be lost for that reason."""
    packed = PackedVisits()
    packed.extend([entry(number + 1, step_name=Name.ITEM, error_category=Name.ITEM) for number in range(600)])
    assert [(row.step_name, row.error_category) for row in packed] == [("item", "item")] * 600
    assert type(next(iter(packed)).step_name) is str


@pytest.mark.parametrize("after", [0, 1, 511, 512, 513, 1024, 1999, 2000])
def test_entries_before_a_number_are_left_out(after: int) -> None:
    packed = PackedVisits()
    packed.extend([entry(number) for number in range(1, 2001)])
    assert [row.seq for row in packed.ending_after(after)] == [*range(after + 1, 2001)]


def test_items_that_resemble_each_other_take_a_tenth_of_their_memory() -> None:
    tracemalloc.start()
    try:
        plain = [entry(number) for number in range(20_000)]
        of_plain = tracemalloc.get_traced_memory()[0]
        packed = PackedVisits()
        for start in range(0, len(plain), 200):
            packed.extend(plain[start : start + 200])
        plain.clear()
        of_packed = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(list(packed)) == 20_000
    assert of_packed < of_plain / 10, (of_packed, of_plain)


@pytest.mark.anyio
async def test_a_long_run_in_memory_is_read_and_resumed_like_a_short_one() -> None:
    """Also its events, page by page: some are rows of their own, the others are derived from packed entries."""
    store = MemoryRunStore()
    runner = WorkflowRunner(store=store)
    ran: list[int] = []

    async def work(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        item = int(str(context.get_param("item")))
        ran.append(item)
        if item == 1_700 and len(ran) < 2_000:
            return StepResult.stop("half-way")
        return StepResult.ok({"item": item}, events=["noted"] if item % 100 == 0 else None)

    workflow = Workflow("w", [Step.map("each", items=range(2_500), iterator=work, max_concurrency=10)])
    first = await runner.execute(workflow, run_id="r")
    assert first.status == "stopped"
    second = await runner.resume("r")
    assert second.status == "completed"
    assert sorted(ran) == [*range(2_500)]
    results = second.context.get_output("each", "results")
    assert results == [{"item": item} if item != 1_700 else None for item in range(2_500)]
    events = [event async for event in runner.events("r")]
    assert [event.seq for event in events] == [*range(1, len(events) + 1)]
    assert (
        sum(event.event_type == "map_item_completed" for event in events) == 2_499
    )  # the one that stopped has its own
    assert sum(event.event_type == "noted" for event in events) == 24
    assert all(before.seq < after.seq for before, after in pairwise(events))
    assert [event.seq async for event in runner.events("r", after=4_321)] == [*range(4_322, len(events) + 1)]
