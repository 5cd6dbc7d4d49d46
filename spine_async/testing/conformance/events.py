"""Contract of `events`: stored and derived events in one sequence without gaps."""

from __future__ import annotations

import json
from typing import TypeAlias

from spine_async._model.status import StepStatus, StepType
from spine_async._model.visit_row import EventRow
from spine_async.ports import RunStore
from spine_async.testing.conformance.rows import change, committed, created, event, moment, moved, new_run, visit

EventValues: TypeAlias = tuple[int, str, str | None, str | None, object]


class EventContract:
    """Events are numbered without gaps. An event is visible if and only if its row is stored."""

    async def _event_values(self, store: RunStore, after: int = 1) -> list[EventValues]:
        return [_event_values(each) for each in await store.events("run-1", after, 1000)]

    async def test_a_completed_visit_has_events_of_its_start_and_end(self, store: RunStore) -> None:
        claim = await created(store)
        await committed(store, change(claim, [visit("fetch", 3, started_seq=2, attempts=2)]))
        ended = {"duration_ms": 250.5, "output_size": 11, "attempts": 2}
        assert await self._event_values(store) == [
            (2, "step_started", "fetch", "fetch", {}),
            (3, "step_completed", "fetch", "fetch", ended),
        ]

    async def test_events_have_the_times_of_their_rows(self, store: RunStore) -> None:
        claim = await created(store)
        await committed(store, change(claim, [visit("fetch", 3, started_seq=2)], [event("noted", 4)]))
        events = await store.events("run-1", 1, 10)
        assert [each.timestamp for each in events] == [moment(3), moment(3.25), moment(4)]

    async def test_a_start_event_that_is_stored_is_not_repeated(self, store: RunStore) -> None:
        claim = await created(store)
        claim = moved(claim, await committed(store, change(claim, events=[event("step_started", 2, step="fetch")])))
        await committed(store, change(claim, [visit("fetch", 3)]))
        assert [each[:3] for each in await self._event_values(store)] == [
            (2, "step_started", "fetch"),
            (3, "step_completed", "fetch"),
        ]

    async def test_the_event_of_a_skipped_visit_has_the_reason(self, store: RunStore) -> None:
        claim = await created(store)
        row = visit("fetch#2", 3, started_seq=2, status=StepStatus.SKIPPED, output=None, error="closed today")
        await committed(store, change(claim, [row]))
        assert (await self._event_values(store))[1] == (
            3,
            "step_skipped",
            "fetch",
            "fetch#2",
            {"reason": "closed today"},
        )

    async def test_the_event_of_a_failed_visit_has_the_error(self, store: RunStore) -> None:
        claim = await created(store)
        row = visit("fetch", 2, status=StepStatus.FAILED, attempts=3, error='E: "no"', error_category="TRANSIENT")
        await committed(store, change(claim, [row]))
        metadata = {"duration_ms": 250.5, "attempts": 3, "error_category": "TRANSIENT", "error": 'E: "no"'}
        assert await self._event_values(store) == [(2, "step_failed", "fetch", "fetch", metadata)]

    async def test_the_last_visit_of_an_item_has_an_event_of_the_item(self, store: RunStore) -> None:
        claim = await created(store)
        values = {"started_seq": 2, "item_seq": 4, "item_index": 7}
        await committed(store, change(claim, [visit("each#2[7]/x", 3, ends_item=True, **values)]))  # type: ignore[arg-type]
        assert [each[:4] for each in await self._event_values(store)] == [
            (2, "step_started", "x", "each#2[7]/x"),
            (3, "step_completed", "x", "each#2[7]/x"),
            (4, "map_item_completed", "each", "each#2[7]"),
        ]
        assert (await self._event_values(store))[2][4] == {"index": 7, "output_size": 11}

    async def test_the_event_of_an_inner_item_has_the_path_of_the_inner_map(self, store: RunStore) -> None:
        claim = await created(store)
        row = visit("out[3]/inn[5]/x", 2, item_seq=3, item_index=5, ends_item=True)
        await committed(store, change(claim, [row]))
        last = (await self._event_values(store))[1]
        assert last == (3, "map_item_completed", "inn", "out[3]/inn[5]", {"index": 5, "output_size": 11})

    async def test_entries_that_are_no_visits_have_no_derived_events(self, store: RunStore) -> None:
        claim = await created(store)
        rows = [
            visit("pause", 2, status=StepStatus.WAITING, step_type=StepType.WAIT),
            visit("@override", 3, status=StepStatus.OVERRIDE),
        ]
        stored = [event("step_started", 2, step="pause"), event("params_overridden", 3)]
        await committed(store, change(claim, rows, stored))
        assert [each[:3] for each in await self._event_values(store)] == [
            (2, "step_started", "pause"),
            (3, "params_overridden", None),
        ]

    async def test_visits_of_a_run_without_events_have_no_events(self, store: RunStore) -> None:
        claim = await created(store, new_run(records_events=False))
        await committed(
            store, change(claim, [visit("fetch", 1, records_events=False), visit("save", 2, records_events=False)])
        )
        assert await store.events("run-1", 0, 10) == []
        assert len(await store.visits("run-1")) == 2

    async def test_stored_events_come_back_unchanged(self, store: RunStore) -> None:
        claim = await created(store)
        given = [event("priced", 2, step="fetch", metadata='{"b":1,"a":[null,"ü"]}'), event("noted", 3)]
        await committed(store, change(claim, events=given))
        assert await store.events("run-1", 1, 10) == given

    async def test_numbers_have_no_gaps(self, store: RunStore) -> None:
        await self._long_run(store)
        events = await store.events("run-1", 0, 1000)
        assert [each.seq for each in events] == list(range(1, 62))

    async def test_reading_goes_on_after_any_number(self, store: RunStore) -> None:
        await self._long_run(store)
        everything = await store.events("run-1", 0, 1000)
        for after in range(63):
            assert await store.events("run-1", after, 1000) == everything[after:]

    async def test_a_limit_may_fall_on_any_event(self, store: RunStore) -> None:
        await self._long_run(store)
        everything = await store.events("run-1", 0, 1000)
        for limit in range(1, 12):
            for after in (0, 1, 2, 3, 4, 5, 30):
                assert await store.events("run-1", after, limit) == everything[after : after + limit]

    async def test_pages_add_up_to_the_whole(self, store: RunStore) -> None:
        await self._long_run(store)
        seen: list[EventRow] = []
        while page := await store.events("run-1", seen[-1].seq if seen else 0, 7):
            seen += page
        assert seen == await store.events("run-1", 0, 1000)

    async def test_an_unknown_run_has_none(self, store: RunStore) -> None:
        assert await store.events("nobody", 0, 10) == []

    async def test_runs_do_not_see_each_others_events(self, store: RunStore) -> None:
        claims = [claim for claim in await store.create([new_run("a"), new_run("b")]) if claim]
        for claim in claims:
            await committed(store, change(claim, [visit(claim.run_id, 3, started_seq=2)]))
        assert [each.step_name for each in await store.events("a", 1, 10)] == ["a", "a"]

    async def _long_run(self, store: RunStore) -> None:
        """Ten commits of six events each, from an item's last step with an event of its own, and a plain step."""
        claim = await created(store)
        for index in range(10):
            at = claim.next_seq
            item = visit(f"m[{index}]/x", at + 2, started_seq=at, item_seq=at + 3, item_index=index, ends_item=True)
            step = visit(f"s{index}", at + 5, started_seq=at + 4, step_type=StepType.PIPELINE)
            made = await committed(store, change(claim, [item, step], [event("noted", at + 1, step="x")]))
            claim = moved(claim, made)


def _event_values(row: EventRow) -> EventValues:
    return row.seq, row.event_type, row.step_name, row.path, json.loads(row.metadata)
