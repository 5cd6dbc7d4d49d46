"""Runners on a store in memory die at every failpoint of every kind of step, inside this process."""

from __future__ import annotations

import pytest

from spine_async.storage import MemoryRunStore
from tests.chaos.checks import check_completed, read_memory, require
from tests.chaos.fabric import Stage
from tests.chaos.size import report
from tests.chaos.stories import memory_of

pytestmark = pytest.mark.anyio


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("story", ["short", "journey", "nested"])
async def test_a_death_at_every_failpoint(story: str) -> None:
    store = MemoryRunStore()
    stage = Stage(store, lambda: read_memory(store))
    undisturbed = await stage.live("undisturbed", story)
    assert undisturbed is not None
    count = len(stage.points)
    deaths = 0
    for number in range(1, count + 1):
        run = f"p{number}"
        deaths += await stage.live(run, story, die_at=number) is None
        stage.look()
        end_lease(store, run)
        result = await stage.live(run, story)
        assert result is not None
        check_completed(stage.look(), [run])
        require(memory_of(result.context) == memory_of(undisturbed.context), f"{run} ended with another context")
        await store.delete([run])
        stage.history.forget([run])
    report(f"every failpoint[memory, {story}]", n=count, deaths=deaths)


def end_lease(store: MemoryRunStore, run: str) -> None:
    """End the lease of the run, as time would."""
    if run in store._runs:
        store._runs[run].lease_end = 0.0
