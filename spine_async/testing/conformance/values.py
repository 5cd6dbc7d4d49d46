"""Contract of stored values: each is returned unchanged, and no text is interpreted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone

from spine_async._model.run_change import RunEnd
from spine_async._model.run_filter import RunFilter
from spine_async._model.status import RunStatus, StepStatus
from spine_async.ports import RunStore
from spine_async.testing.conformance.rows import (
    change,
    committed,
    created,
    event,
    loaded,
    moment,
    new_run,
    taken_over,
    visit,
)

_DOCUMENTS = (
    "null",
    '"\\u0000"',
    '{"a":"\\u0000\\ud83d\\ude00","a ":1}',
    '{"text":"ü ß 漢字 😀 \u2028 \x7f"}',
    '{"big":123456789012345678901234567890123456789,"small":-1e-300,"one":1.0,"exact":0.1}',
    '{"z":1,"a":2,"é":3,"Z":4}',
    '{ "spaced" :  [ 1 , 2 ] }',
    '{"quote":"\\"","slash":"\\\\ \\/","percent":"%s %(x)s :name ? $1 {}"}',
    "[" * 90 + "]" * 90,
)
_IDS = (
    "it's",
    'say "hi"',
    "'; DROP TABLE core_workflow_runs; --",
    "a/b/../c",
    "back\\slash",
    "100%",
    "%",
    "_",
    ":name",
    "$1 ? %s {0}",
    "ü 漢字 😀",
    "Run",
    "run",
    " spaced ",
    "x" * 200,
)


class ValueContract:
    """Every text comes back byte for byte."""

    async def test_documents_come_back_byte_for_byte(self, store: RunStore) -> None:
        claim = await created(store)
        rows = [
            visit(f"s{number}", number, output=text, updates=text, quality=text, item_params=text)
            for number, text in enumerate(_DOCUMENTS, 2)
        ]
        await committed(store, change(claim, rows))
        kept = await store.visits("run-1")
        assert [(row.output, row.updates, row.quality, row.item_params) for row in kept] == [
            (text,) * 4 for text in _DOCUMENTS
        ]

    async def test_event_metadata_comes_back_byte_for_byte(self, store: RunStore) -> None:
        claim = await created(store)
        events = [event("noted", number, metadata=text) for number, text in enumerate(_DOCUMENTS, 2)]
        await committed(store, change(claim, events=events))
        assert [each.metadata for each in await store.events("run-1", 1, 100)] == list(_DOCUMENTS)

    async def test_the_documents_of_a_run_come_back_byte_for_byte(self, store: RunStore) -> None:
        for number, text in enumerate(_DOCUMENTS):
            new = replace(new_run(f"r{number}"), params=text, partition=text)
            await created(store, replace(new, initial_outputs=text, initial_quality=text, metadata=text))
            run = await loaded(store, f"r{number}")
            documents = (run.params, run.initial_outputs, run.initial_quality, run.partition, run.metadata)
            assert documents == (text,) * 5

    async def test_a_document_of_a_megabyte_comes_back(self, store: RunStore) -> None:
        claim = await created(store)
        text = '"' + "0123456789abcdéf" * 65_536 + '"'
        await committed(store, change(claim, [visit("large", 2, output=text, output_size=len(text.encode()))]))
        (row,) = await store.visits("run-1")
        assert row.output == text

    async def test_error_texts_come_back(self, store: RunStore) -> None:
        claim = await created(store)
        text = 'ValueError: it\'s 100% "wrong"; DROP TABLE x; --\n\ttraceback ü 漢字'
        row = visit("fetch", 2, status=StepStatus.FAILED, output=None, error=text, error_category="INTERNAL")
        end = RunEnd(RunStatus.FAILED, moment(60), "fetch", text, "INTERNAL", text)
        await committed(store, change(claim, [row], end=end))
        assert (await store.visits("run-1"))[0].error == text
        run = await loaded(store)
        assert (run.error, run.stop_reason) == (text, text)

    async def test_any_text_can_be_an_id(self, store: RunStore) -> None:
        claims = await store.create([new_run(run_id, at=number) for number, run_id in enumerate(_IDS)])
        assert [claim and claim.run_id for claim in claims] == list(_IDS)
        assert [run.run_id for run in await store.runs(RunFilter())] == list(reversed(_IDS))

    async def test_every_method_takes_any_id_as_text(self, store: RunStore) -> None:
        await store.create([new_run(run_id, at=number) for number, run_id in enumerate(_IDS)])
        for run_id in _IDS:
            claim = await taken_over(store, run_id, f"owner of {run_id}")
            await committed(store, change(claim, [visit("fetch", 2, output=f'"{len(run_id)}"')]))
            assert (await loaded(store, run_id)).owner == f"owner of {run_id}"
            assert [row.output for row in await store.visits(run_id)] == [f'"{len(run_id)}"']
            assert len(await store.events(run_id, 0, 10)) == 2
        for left, run_id in enumerate(reversed(_IDS)):
            assert await store.delete([run_id]) == [run_id]
            assert len(await store.runs(RunFilter())) == len(_IDS) - left - 1

    async def test_step_names_and_event_types_may_be_any_text(self, store: RunStore) -> None:
        claim = await created(store)
        names = ("it's", 'say "hi"', "100%", "a.b c", "ü 漢字 😀", ":name", "$1 ? %s")
        rows = [visit(name, number) for number, name in enumerate(names, 2)]
        given = [event(f"type {name}", number, step=name) for number, name in enumerate(names, 2 + len(names))]
        await committed(store, change(claim, rows, given))
        assert [row.step_name for row in await store.visits("run-1")] == list(names)
        assert await store.events("run-1", 1 + len(names), 100) == given

    async def test_filters_take_any_text_as_text(self, store: RunStore) -> None:
        await store.create([new_run(f"r{n}", workflow=name) for n, name in enumerate(_IDS)])
        for number, name in enumerate(_IDS):
            assert [run.run_id for run in await store.runs(RunFilter(workflow_name=name))] == [f"r{number}"]

    async def test_moments_of_other_time_zones_stay_the_same_moment(self, store: RunStore) -> None:
        at = moment(0).astimezone(timezone(timedelta(hours=5, minutes=30)))
        await created(store, replace(new_run(), created_at=at))
        assert (await loaded(store)).created_at == at
