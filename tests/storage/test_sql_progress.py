"""What counts as progress; a run that kills its owners is detected by claims without progress."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from spine_async._model.status import RunStatus, StepStatus
from spine_async.ports import RunStore
from spine_async.storage import SqlRunStore
from spine_async.testing.conformance.rows import change, committed, created, event, loaded, moved, taken_over, visit


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[RunStore]:
    store = SqlRunStore.from_url(database_url)
    yield store
    await store.close()


async def test_events_and_overrides_of_a_resume_are_no_progress(store: RunStore) -> None:
    await created(store)
    claim = await taken_over(store)
    override = visit(
        "@override", 3, status=StepStatus.OVERRIDE, output=None, updates='{"limit":9}', records_events=False
    )
    claim = moved(claim, await committed(store, change(claim, [override], [event("workflow_resumed", 2)])))
    claim = moved(claim, await committed(store, change(claim, events=[event("step_started", 4)])))
    await committed(store, change(claim, status=RunStatus.WAITING))
    assert (await loaded(store)).claims_since_progress == 1
    await taken_over(store)
    assert (await loaded(store)).claims_since_progress == 1, "a run that waits does not harm its owner"
    await taken_over(store)
    assert (await loaded(store)).claims_since_progress == 2


async def test_a_failed_visit_that_the_run_goes_on_from_is_progress(store: RunStore) -> None:
    await created(store)
    claim = await taken_over(store)
    await committed(store, change(claim, [visit("fetch", 2, status=StepStatus.FAILED, output=None)]))
    assert (await loaded(store)).claims_since_progress == 0
