"""The Redis store with lost replies, cancelled calls, a silent server, and a killed one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from spine_async import RunStatus, Step, StoreUnavailableError, Workflow, WorkflowContext, WorkflowRunner
from spine_async._model.run_claim import Claim, Renewal
from spine_async.ports import CommitOutcome
from spine_async.storage import RedisRunStore
from spine_async.storage.redis import errors
from spine_async.storage.redis import server as redis_server
from spine_async.testing.conformance.rows import change, created, event, loaded, moved, new_run, visit
from tests.servers.redis import URL_VARIABLE, RedisServer, launch
from tests.storage.reply_dropper import ReplyDropper, reply_dropper
from tests.storage.silent_proxy import silent_proxy

pytestmark = pytest.mark.anyio


@pytest.fixture
async def dropper(redis_store_url: str) -> AsyncIterator[tuple[ReplyDropper, RedisRunStore]]:
    """A store behind a proxy that drops replies on request."""
    async with reply_dropper(redis_store_url) as (dropper, url):
        store = RedisRunStore(url.render_as_string(hide_password=False))
        await store.open()
        assert await store.load("nobody") is None  # loads the scripts
        yield dropper, store
        await store.close()


async def test_a_write_whose_reply_is_lost_is_made_once(dropper: tuple[ReplyDropper, RedisRunStore]) -> None:
    proxy, store = dropper
    proxy.drop_next()
    claim = await created(store, new_run(ttl=0.0))
    proxy.drop_next()
    claimed = await store.claim("run-1", "worker-2", event("workflow_resumed", 0), ttl=60)
    assert claimed == Claim("run-1", claim.key, 2, 3)
    assert (await loaded(store)).claims_since_progress == 1
    made = change(claimed, [visit("fetch", 3)], [event("noted", 4)])
    proxy.drop_next()
    assert await store.commit([made]) == [CommitOutcome.COMMITTED]
    assert [each.seq for each in await store.events("run-1", 0, 9)] == [1, 2, 3, 4]
    proxy.drop_next()
    assert await store.renew([claimed], 0.0) == [Renewal(is_held=True)]
    proxy.drop_next()
    assert await store.delete(["run-1"]) == ["run-1"]
    assert await store.delete(["run-1"]) == []
    assert proxy.dropped == 5


async def test_of_many_commits_in_a_lost_reply_each_is_made_once(dropper: tuple[ReplyDropper, RedisRunStore]) -> None:
    proxy, store = dropper
    claims = [claim for claim in await store.create([new_run(f"r{number}") for number in range(30)]) if claim]
    for number in range(2, 6):
        changes = [change(claim, [visit(f"step-{number}", number)]) for claim in claims]
        proxy.drop_next()
        assert await store.commit(changes) == [CommitOutcome.COMMITTED] * 30
        claims = [moved(claim, made) for claim, made in zip(claims, changes, strict=True)]
    assert proxy.dropped == 4
    for claim in claims:
        assert [row.seq for row in await store.visits(claim.run_id)] == [2, 3, 4, 5]


async def test_cancelled_calls_do_not_disturb_others(redis_store_url: str) -> None:
    store, draws = RedisRunStore(redis_store_url), random.Random(7)
    await store.create([new_run(f"r{number}") for number in range(20)])
    answers: list[tuple[str, str]] = []

    async def read(number: int) -> None:
        run = await loaded(store, f"r{number}")
        answers.append((f"r{number}", run.run_id))

    async def read_cancelled(number: int, turns: int) -> None:
        task = asyncio.create_task(store.load(f"r{number}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for turn in range(200):
                tasks.start_soon(read_cancelled, turn % 20, draws.randrange(12))
                tasks.start_soon(read, draws.randrange(20))
    assert len(answers) == 200
    assert all(asked == got for asked, got in answers)
    await store.close()


async def test_a_silent_server_is_an_error_in_time_and_a_new_connection_helps(redis_store_url: str) -> None:
    async with silent_proxy(redis_store_url) as (proxy, url):
        store = RedisRunStore(url.render_as_string(hide_password=False), timeout=1.0)
        claim = await created(store)
        proxy.fall_silent()
        with anyio.fail_after(30), pytest.raises(StoreUnavailableError, match="no answer within 1 s"):
            await store.load("run-1")
        proxy.speak()
        assert await store.commit([change(claim, [visit("fetch", 2)])]) == [CommitOutcome.COMMITTED]
        await store.close()


async def test_commits_survive_restarts_of_the_server(redis_to_kill: RedisServer) -> None:
    store = RedisRunStore(redis_to_kill.url, timeout=60)
    assert redis_to_kill.process is not None
    claim = await created(store, new_run(ttl=600))
    for number in range(2, 8):
        made = change(claim, [visit(f"step-{number}", number)])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_restart, redis_to_kill)
            assert await store.commit([made]) == [CommitOutcome.COMMITTED]
        claim = moved(claim, made)
    assert [row.path for row in await store.visits("run-1")] == [f"step-{number}" for number in range(2, 8)]
    assert [each.seq for each in await store.events("run-1", 0, 99)] == list(range(1, 8))
    await store.close()


async def test_a_workflow_continues_over_restarts_of_the_server(redis_to_kill: RedisServer) -> None:
    executed: list[int] = []

    async def step(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        executed.append(config["number"])
        if config["number"] % 2:
            await _restart(redis_to_kill)
        return {"number": config["number"]}

    steps = [Step.lambda_(f"step-{number}", step, config={"number": number}) for number in range(6)]
    store = RedisRunStore(redis_to_kill.url, timeout=60)
    async with WorkflowRunner(store=store) as runner:
        result = await runner.execute(Workflow("w", steps), run_id="r")
        events = [each async for each in runner.events("r")]
    assert (result.status, executed) == (RunStatus.COMPLETED, list(range(6)))
    assert [each.seq for each in events] == list(range(1, 15))


async def test_a_call_waits_for_a_server_that_starts_later(
    redis_to_kill: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    retried = anyio.Event()

    def noted(error: Exception) -> bool:
        retried.set()
        return errors.is_transient(error)

    monkeypatch.setattr(redis_server, "is_transient", noted)
    store, process = RedisRunStore(redis_to_kill.url, timeout=60), redis_to_kill.process
    assert process is not None
    await anyio.to_thread.run_sync(process.kill)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(created, store)
            await retried.wait()
            await anyio.to_thread.run_sync(process.start)
    assert (await loaded(store)).epoch == 1
    await store.close()


@pytest.mark.usefixtures("_services")
async def test_a_node_of_a_cluster_serves_a_store_if_it_has_the_slot() -> None:
    server = launch(is_cluster=True)
    if not server.is_own:
        pytest.skip(f"{URL_VARIABLE} names somebody's server, whose slots are not changed")
    try:
        store = RedisRunStore(server.url, timeout=60)
        impatient = RedisRunStore(server.url, timeout=1.0)
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            await impatient.load("run-1")
        client = Redis.from_url(server.url, driver_info=None)
        await client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)  # type: ignore[no-untyped-call]
        await client.aclose()
        async with WorkflowRunner(store=store) as runner:
            result = await runner.execute(Workflow("w", [Step.lambda_("a", _nothing)]), run_id="r")
            assert [each.run_id for each in await runner.list_runs(workflow_name="w")] == ["r"]
            await runner.delete_run("r")
        assert result.status is RunStatus.COMPLETED
        await impatient.close()
    finally:
        server.stop()


async def test_reads_that_wait_for_a_silent_server_end_in_time(redis_store_url: str) -> None:
    async with silent_proxy(redis_store_url) as (proxy, url):
        store = RedisRunStore(url.render_as_string(hide_password=False), timeout=1.0)
        await store.open()
        proxy.fall_silent()

        async def read() -> None:
            with pytest.raises(StoreUnavailableError, match="no answer within 1 s"):
                await store.load("run-1")

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(read)
        await store.close()


async def _nothing(context: WorkflowContext, config: object) -> None:
    return None


async def _restart(server: RedisServer) -> None:
    assert server.process is not None
    await anyio.to_thread.run_sync(server.process.kill)
    await anyio.to_thread.run_sync(server.process.start)
