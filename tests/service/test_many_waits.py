"""Many waiting runs whose owner was killed do not delay an ordinary run."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from spine_async import Enqueued, WorkflowRunner
from tests.chaos.size import report, size
from tests.crash.conftest import Rows
from tests.service.conftest import StartService
from tests.service.flows import Notes
from tests.service.places import Place
from tests.service.services import until

LEASE = 15.0


@pytest.mark.slow
async def test_an_ordinary_run_continues_before_the_recovered_waits_are_through(
    service: StartService, observer: WorkflowRunner, notes: Notes, query: Callable[..., Rows], database: Place
) -> None:
    """The owner holds all of them when it is killed; the next one executes at most a hundred runs at once."""
    waits = size(300, 10_000)
    config = {"lease_ttl": LEASE, "park_after": 10_000}
    owner = await service(config={**config, "worker_concurrency": waits + 1})
    await observer.enqueue_many("long_wait", [Enqueued(run_id=f"w{number}") for number in range(waits)])
    ordinary = await observer.enqueue("gated", run_id="ordinary")
    held = "SELECT count(*) FROM core_workflow_runs WHERE status = 'waiting' AND owner IS NOT NULL"
    await until(lambda: query(held) == [(waits,)], within=max(20.0, waits / 20), every=0.1)
    await until(lambda: notes.begun("ordinary") == ["first", "gated"])
    await owner.kill()

    killed_at = time.monotonic()
    await service(config={"lease_ttl": LEASE, "park_after": 0})
    await until(lambda: notes.begun("ordinary") == ["first", "gated", "gated"])
    took = time.monotonic() - killed_at
    notes.open_gate("ordinary")
    assert (await ordinary.result(timeout=20)).status == "completed"
    assert took < LEASE
    assert len(notes.read(what="began", path="first")) == waits + 1
    report(f"waits[{(database.url or '').partition('+')[0]}]", n=waits, continued_after=round(took, 2))
