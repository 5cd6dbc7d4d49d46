"""Another process claims a run: at once if the owner was killed on the same host, otherwise when the lease ends."""

from __future__ import annotations

import signal
import time

import anyio
import pytest

from spine_async import RunBusyError, WorkflowRunner, WorkflowRunnerConfig
from tests.chaos.arena import KILLED, Arena
from tests.chaos.diary import ListDiary
from tests.chaos.stories import Story

pytestmark = pytest.mark.anyio

LONG = 3600.0


@pytest.mark.parametrize("how", ["resume", "execute", "recover", "work"])
async def test_a_run_of_a_killed_process_on_the_same_host_is_claimed_at_once(arena: Arena, how: str) -> None:
    assert arena.live(arena.job(["r"], story="short", die_at=20, ttl=LONG)) == KILLED
    workflow, dispatcher = Story(ListDiary()).workflow("short")
    config = WorkflowRunnerConfig(database_url=arena.url)
    async with WorkflowRunner(config=config, dispatcher=dispatcher, workflows=[workflow], work=how == "work") as runner:
        began = time.monotonic()
        if how == "resume":
            await runner.resume("r")
        elif how == "execute":
            await runner.execute(workflow, params={"day": 1}, run_id="r")
        elif how == "recover":
            assert [each.run_id for each in await runner.recover()] == ["r"]
        with anyio.fail_after(20):
            while (await runner.get_run("r")).status != "completed":  # noqa: ASYNC110 (another task gets it there)
                await anyio.sleep(0.01)
        assert time.monotonic() - began < 20 < LONG
    arena.close()


async def test_a_run_of_a_paused_owner_is_claimed_when_its_lease_ends(arena: Arena) -> None:
    child = arena.nursery.fork(arena.job(["r"], story="short", act="sleep", die_at=20, ttl=0.3))
    arena.wait_for_entry("died")
    workflow, dispatcher = Story(ListDiary()).workflow("short")
    config = WorkflowRunnerConfig(database_url=arena.url)
    errors: list[RunBusyError] = []
    async with WorkflowRunner(config=config, dispatcher=dispatcher, workflows=[workflow], work=False) as runner:
        with anyio.fail_after(20):
            while True:
                try:
                    result = await runner.resume("r")
                    break
                except RunBusyError as exc:
                    errors.append(exc)
                    await anyio.sleep(0.01)
    assert result.status == "completed"
    assert all(f"/{child}/" in str(exc.owner) and exc.lease_until is not None for exc in errors)
    arena.nursery.signal(child, signal.SIGKILL)
    assert arena.nursery.wait(child) == KILLED
    arena.close()
