"""Every failpoint of every kind of step, in a store in memory whose runners die within this process."""

from __future__ import annotations

import pytest

from spine_async.storage import MemoryRunStore
from tests.chaos.checks import check_completed, read_memory, require
from tests.chaos.fabric import Stage
from tests.chaos.size import tell
from tests.chaos.stories import memory_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("story", ["short", "journey"])
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
        require(memory_of(result.context) == memory_of(undisturbed.context), f"{run} came to something else")
        await store.delete(run)
        stage.ledger.forget([run])
    tell(f"every failpoint[memory, {story}]", n=count, deaths=deaths)


def end_lease(store: MemoryRunStore, run: str) -> None:
    """As its time would."""
    if run in store._runs:
        store._runs[run].lease_end = 0.0
