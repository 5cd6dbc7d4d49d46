"""Recovery on a store that keeps no due runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from spine_async._engine.runtime import plain_due_runs
from spine_async._engine.runtime.plain_due_runs import PlainDueRuns
from spine_async._model.due import DueRequest
from spine_async.storage import FileRunStore, MemoryRunStore
from spine_async.storage.file.folder import LOG, folder_name
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


async def test_older_runs_are_found_although_many_newer_ones_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_due_runs, "_PAGE", 3)
    store = MemoryRunStore()
    await created(store, replace(new_run("orphan", workflow="flow", ttl=600), owner="dead"))
    for number in range(7):
        await created(store, replace(new_run(f"r{number}", workflow="flow", ttl=600, at=1.0 + number), owner="alive"))
    due_runs = PlainDueRuns(store)
    seen = [(await due_runs.sweep()).owners for _ in range(4)]
    assert seen == [{"alive": False}, {"alive": False}, {"alive": False, "dead": False}, {"alive": False}]
    for _ in range(2):
        found = await due_runs.sweep()
    assert "dead" in found.owners
    await due_runs.sweep(gone=["dead"])
    (claimed,) = await due_runs.claim_due(request())
    assert (claimed.run.run_id, claimed.run.params) == ("orphan", new_run().params)


async def test_a_run_that_cannot_be_read_does_not_stop_the_recovery_of_others(tmp_path: Path) -> None:
    store = FileRunStore(tmp_path)
    for run_id in ("bad", "good"):
        await created(store, replace(new_run(run_id, workflow="flow", ttl=600), owner="dead"))
    log = tmp_path / folder_name("bad") / LOG
    log.write_text(log.read_text().replace("orders", "ordirs").replace("flow", "flaw"))
    due_runs = PlainDueRuns(FileRunStore(tmp_path))
    await due_runs.sweep(gone=["dead"])
    assert [each.run.run_id for each in await due_runs.claim_due(request())] == ["good"]
