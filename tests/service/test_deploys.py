"""A rolling deploy: processes with the old and with the new version of a workflow share a database."""

from __future__ import annotations

import asyncio

from spine_async import WorkflowRunner
from tests.service.conftest import StartService
from tests.service.flows import Notes

BATCHES, BATCH = 4, 5


async def test_no_run_of_the_new_version_is_executed_by_the_old_one(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    """Both versions enqueue and work at the same time; then the old processes are terminated, one after the other."""
    old = [await service(version=1) for _ in range(2)]
    new = [await service(version=2)]
    ids: list[str] = []
    for batch in range(BATCHES):
        producers = [(old[batch % len(old)], "v1"), (new[-1], "v2")] if old else [(new[-1], "v2")]
        runs = {name: [f"{name}-{batch}-{number}" for number in range(BATCH)] for _, name in producers}
        await asyncio.gather(
            *(each.ask("enqueue_version", workflow="rolling", ids=runs[name]) for each, name in producers)
        )
        ids += [run for each in runs.values() for run in each]
        if batch:
            leaving = old.pop() if old else None
            if leaving is not None:
                await leaving.terminate()
                new.append(await service(version=2))
    for run in ids:
        assert (await observer.handle(run).result(timeout=20)).status == "completed"

    new_pids = {each.pid for each in new}
    for run in ids:
        begun = notes.read(what="began", run=run)
        pids = [note["pid"] for note in begun]
        assert new_pids.issuperset(pids) or run.startswith("v1")
        # A run that an old process gave up when it was terminated is completed by the new version.
        steps = list(dict.fromkeys(note["path"] for note in begun))
        assert steps == (["first", "last", "added"] if pids[-1] in new_pids else ["first", "last"]), run
    assert not old
