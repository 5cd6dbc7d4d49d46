"""Processes with parents and queued children are killed by SIGKILL: all end, and no child is started twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

import pytest

from spine_async import RunStatus, WorkflowRunner
from tests.chaos.size import draws, report, size
from tests.crash.conftest import Rows
from tests.service.conftest import StartService
from tests.service.flows import Notes

pytestmark = pytest.mark.anyio

WORKERS = 2
FAMILIES = 4
CHILDREN = 3

CHILD_RUNS = "SELECT run_id, parent_run_id FROM core_workflow_runs WHERE parent_run_id IS NOT NULL"
STARTED = "SELECT run_id, count(*) FROM core_workflow_events WHERE event_type = 'workflow_started' GROUP BY run_id"
COMMITTED = (
    "SELECT r.run_id, s.path, s.completed_at FROM core_workflow_steps s JOIN core_workflow_runs r ON r.id = s.run "
    "WHERE s.step_name IN ('brief', 'again')"
)


async def test_parents_and_children_survive_kills(
    service: StartService, observer: WorkflowRunner, query: Callable[..., Rows], notes: Notes, database_url: str
) -> None:
    name = database_url.split("+", maxsplit=1)[0]
    wanted, draw, began_at = size(5, 500), draws("children", name), time.monotonic()
    config = {"max_claims": 1000, "poll_interval": 0.1, "park_after": 0.0}
    handles = [await observer.enqueue("family", run_id=f"f{number}") for number in range(FAMILIES)]
    workers = [await service(config=config) for _ in range(WORKERS)]
    for kills in range(wanted):
        await asyncio.sleep(draw.uniform(0.0, 0.2))
        victim = draw.randrange(WORKERS)
        await workers[victim].kill()
        workers[victim] = await service(config=config)
        if kills % 3 == 2:
            handles.append(await observer.enqueue("family", run_id=f"f{len(handles)}"))
    for handle in handles:
        result = await handle.result(timeout=120)
        assert (result.status, result.context.get_output("each", "succeeded")) == (RunStatus.COMPLETED, CHILDREN)
    families = [handle.run_id for handle in handles]
    wanted_children = sorted((f"{run_id}/each[{n}]/child", run_id) for run_id in families for n in range(CHILDREN))
    assert sorted(query(CHILD_RUNS)) == wanted_children
    assert {count for _, count in query(STARTED)} == {1}
    check_steps(notes, query(COMMITTED))
    seconds = round(time.monotonic() - began_at, 1)
    report(f"children[{name}]", kills=wanted, parents=len(families), children=len(wanted_children), seconds=seconds)


def check_steps(notes: Notes, committed: Rows) -> None:
    """Each step of a child is committed once, and no attempt of it began after the commit."""
    committed_at: dict[tuple[str, str], datetime] = {}
    for run_id, path, at in committed:
        assert (run_id, path) not in committed_at
        committed_at[run_id, path] = at if isinstance(at, datetime) else datetime.fromisoformat(at)
    begun = [note for note in notes.read(what="began") if (note["run"], note["path"]) in committed_at]
    assert {(note["run"], note["path"]) for note in begun} == set(committed_at)
    for note in begun:
        assert note["time"] <= committed_at[note["run"], note["path"]].timestamp()
