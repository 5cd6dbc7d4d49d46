"""Recovery on a store that keeps no due runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from spine_async._engine.runtime.plain_due_runs import PlainDueRuns
from spine_async._model.due import DueRequest
from spine_async.storage import MemoryRunStore
from spine_async.testing.conformance.rows import created, new_run

pytestmark = pytest.mark.anyio


def request() -> DueRequest:
    return DueRequest(owner="worker", workflows={"flow": 9}, queues=frozenset(), limit=10, ttl=60, at=datetime.now(UTC))


async def test_an_owner_that_is_gone_loses_its_run_at_once() -> None:
    store = MemoryRunStore()
    await created(store, replace(new_run("r", workflow="flow", ttl=600), owner="other"))
    due_runs = PlainDueRuns(store)
    assert (await due_runs.sweep()).owners == {"other": False}
    assert await due_runs.claim_due(request()) == []
    await due_runs.sweep(gone=["other"])
    assert [each.run.run_id for each in await due_runs.claim_due(request())] == ["r"]


async def test_an_owner_that_has_renewed_its_lease_since_the_sweep_keeps_its_run() -> None:
    store = MemoryRunStore()
    claim = await created(store, replace(new_run("r", workflow="flow", ttl=0.0), owner="other"))
    due_runs = PlainDueRuns(store)
    assert (await due_runs.sweep()).owners == {"other": True}
    await due_runs.sweep(lapsed=["other"])
    await store.renew([claim], 600)
    assert await due_runs.claim_due(request()) == []
