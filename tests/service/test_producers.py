"""Producers in one process, workers in others."""

from __future__ import annotations

import time
from statistics import median

import pytest

from spine_async import Enqueued, RunStatus, WorkflowRunner
from tests.service.conftest import StartService
from tests.service.flows import Notes
from tests.service.services import until

SAMPLES = 30
SOON = 10.0
"""Seconds; far below `poll_interval`, so that no process has looked by chance. W10 measures how soon it is."""


async def test_a_producer_knows_only_the_name(service: StartService, notes: Notes) -> None:
    producer, worker = await service(work=False, knows=False), await service()
    run_id = await producer.ask("enqueue", workflow="quick", params={"day": 1}, run_id="r")
    result = await producer.ask("result", run_id=run_id, timeout=15)
    assert (result["status"], result["outputs"]["first"]) == ("completed", {"run": "r", "given": {"day": 1}})
    assert [note["pid"] for note in notes.read(what="began")] == [worker.pid]


async def test_a_process_that_does_not_work_executes_what_it_starts(service: StartService, notes: Notes) -> None:
    starter, worker = await service(work=False, config={"park_after": 0}), await service()
    await starter.ask("start", workflow="wait", run_id="r")
    assert (await worker.ask("result", run_id="r", timeout=15))["status"] == "completed"
    assert {note["pid"] for note in notes.read(what="began", run="r")} == {starter.pid}


async def test_a_worker_that_is_started_later_finds_everything(service: StartService, notes: Notes) -> None:
    producer = await service(work=False, knows=False)
    ids = [f"r{number}" for number in range(20)]
    assert await producer.ask("enqueue_many", workflow="quick", ids=ids) == ids
    await producer.terminate()
    worker = await service()
    for run in ids:
        assert (await worker.ask("result", run_id=run, timeout=15))["status"] == "completed"
    assert sorted(note["run"] for note in notes.read(what="began")) == sorted(ids)


async def test_two_workers_never_execute_the_same_run(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    workers = [await service(config={"worker_concurrency": 5}) for _ in range(2)]
    handles = await observer.enqueue_many("quick", [Enqueued() for _ in range(100)])
    for handle in handles:
        assert (await handle.result(timeout=20)).status == "completed"
    begun = [note["run"] for note in notes.read(what="began")]
    assert sorted(begun) == sorted(handle.run_id for handle in handles)
    assert {note["pid"] for note in notes.read(what="began")} <= {worker.pid for worker in workers}


async def test_runs_survive_the_death_of_producer_and_worker(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    producer, worker = await service(work=False), await service()
    await producer.ask("enqueue", workflow="async", run_id="r")
    await until(lambda: notes.begun("r") == ["first", "hold"])
    await producer.kill()
    await worker.kill()
    await service()
    result = await observer.handle("r").result(timeout=15)
    assert result.completed_steps == ["first", "hold", "last"]
    assert notes.begun("r") == ["first", "hold", "hold", "last"]


async def test_a_killed_starter_leaves_its_run_to_the_workers(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    """The lease of the dead process has not ended; the worker sees that the process is gone."""
    starter, _ = await service(work=False), await service()
    await starter.ask("start", workflow="async", run_id="r")
    await until(lambda: notes.begun("r") == ["first", "hold"])
    killed_at = time.perf_counter()
    await starter.kill()
    assert (await observer.handle("r").result(timeout=15)).completed_steps == ["first", "hold", "last"]
    assert time.perf_counter() - killed_at < 10


async def test_an_idle_worker_in_another_process_starts_at_once(
    service: StartService, observer: WorkflowRunner, notes: Notes, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fallback polls every 60 s here, so only a notification explains the time."""
    await service(config={"poll_interval": 60})
    took, learned = [], []
    for number in range(SAMPLES):
        run = f"r{number}"
        asked_at = time.time()
        handle = await observer.enqueue("quick", run_id=run)
        result = await handle.result(timeout=20)
        learned.append(time.time() - result.completed_at.timestamp())
        (note,) = notes.read(what="began", run=run)
        took.append(note["time"] - asked_at)
    with capsys.disabled():
        print(
            f"\n{observer.config.database_url or ''!s:.10}: enqueue to first step p50 {median(took) * 1000:.1f} ms, "
            f"max {max(took) * 1000:.1f} ms; end to result p50 {median(learned) * 1000:.1f} ms"
        )
    assert median(took) < SOON, took
    assert median(learned) < SOON, learned


async def test_a_delayed_run_wakes_an_idle_worker(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    await service(config={"poll_interval": 60})
    handle = await observer.enqueue("quick", run_id="r", delay=0.5)
    due_at = (await handle.record()).due_at
    await handle.result(timeout=20)
    (note,) = notes.read(what="began", run="r")
    assert due_at is not None
    assert 0 <= note["time"] - due_at.timestamp() < SOON


async def test_runs_of_unknown_workflows_do_not_hold_up_others(service: StartService, observer: WorkflowRunner) -> None:
    await observer.enqueue_many("unknown", [Enqueued(priority=-1) for _ in range(500)])
    await service(config={"worker_concurrency": 1})
    handle = await observer.enqueue("quick")
    assert (await handle.result(timeout=10)).status == "completed"
    assert len(await observer.list_runs(status=RunStatus.PENDING, limit=1_000)) == 500
