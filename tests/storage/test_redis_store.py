"""The Redis store: keys, runs of several runners, URLs, settings of the server."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from spine_async import (
    MissingExtraError,
    RunBusyError,
    RunStatus,
    SharingError,
    Step,
    StoreError,
    StoreUnavailableError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async._model.run_filter import RunFilter
from spine_async.ports import CommitOutcome
from spine_async.storage import RedisRunStore
from spine_async.storage.redis.keys import hashed
from spine_async.testing.conformance.rows import change, committed, created, event, new_run, visit
from tests.servers.redis import RedisServer
from tests.storage.killed_run import check_take_over, run_python

pytestmark = pytest.mark.anyio
PAGE = Path(__file__).parents[2] / "docs" / "redis-store.md"


@pytest.fixture
async def store(redis_store_url: str) -> AsyncIterator[RedisRunStore]:
    store = RedisRunStore(redis_store_url)
    yield store
    await store.close()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    """A client that does not use the library."""
    client = Redis.from_url(redis_url, driver_info=None)
    yield client
    await client.aclose()


def config_of(url: str) -> WorkflowRunnerConfig:
    return WorkflowRunnerConfig(checkpoint_storage="redis", redis_url=url)


def prefix_of(url: str) -> str:
    return url.partition("prefix=")[2]


async def double(context: WorkflowContext, config: object) -> dict[str, Any]:
    return {"doubled": 2 * context.params["number"]}


DOUBLES = Workflow("doubles", [Step.lambda_("first", double), Step.lambda_("second", double)])


async def test_keys_have_one_hash_tag_and_contain_no_ids(redis_store_url: str, client: Redis) -> None:
    async with WorkflowRunner(config=config_of(redis_store_url)) as runner:
        result = await runner.execute(DOUBLES, params={"number": 4}, run_id="order 7/ä")
    assert result.status is RunStatus.COMPLETED
    keys = [key.decode() async for key in client.scan_iter("*") if prefix_of(redis_store_url).encode() in key]
    tag = f"{{{prefix_of(redis_store_url)}}}:"
    assert len(keys) >= 6
    assert all(key.startswith(tag) for key in keys)
    assert not any("order" in key or "doubles" in key for key in keys)


async def test_values_are_stored_as_they_are(store: RedisRunStore, redis_store_url: str, client: Redis) -> None:
    output = '{"n":9007199254740993,"f":1.10,"big":123456789012345678901234567890,"s":"\\u0000ä\\ud800"}'
    claim = await created(store)
    await committed(store, change(claim, [visit("fetch", 2, output=output, output_size=len(output))]))
    run = f"{{{prefix_of(redis_store_url)}}}:run:{hashed('run-1')}"
    assert await client.hget(f"{run}:values", "2") == output.encode()
    assert (await store.visits("run-1"))[0].output == output


async def test_a_deleted_run_leaves_no_rows(store: RedisRunStore, redis_store_url: str, client: Redis) -> None:
    claim = await created(store)
    await committed(store, change(claim, [visit("m[0]/x", 2), visit("m", 3)], [event("noted", 4)]))
    assert await store.delete(["run-1"])
    tag = f"{{{prefix_of(redis_store_url)}}}"
    keys = {key.decode() async for key in client.scan_iter(f"{tag}:*")}
    assert keys == {f"{tag}:runs:last", f"{tag}:run:{hashed('run-1')}:deleted"}
    assert await client.pttl(f"{tag}:run:{hashed('run-1')}:deleted") > 0


async def test_stores_with_other_prefixes_do_not_see_each_other(store: RedisRunStore, redis_url: str) -> None:
    await created(store)
    other = RedisRunStore(redis_url, prefix="spine_test_other")
    assert await other.load("run-1") is None
    assert await other.runs(RunFilter()) == []
    await other.close()


async def test_scripts_that_the_server_has_forgotten_are_loaded_again(store: RedisRunStore, client: Redis) -> None:
    claim = await created(store)
    await client.script_flush()
    await committed(store, change(claim, [visit("fetch", 2)]))
    await client.script_flush()
    assert [row.path for row in await store.visits("run-1")] == ["fetch"]


async def test_a_client_of_the_caller_is_used_and_stays_open(redis_store_url: str, client: Redis) -> None:
    store = RedisRunStore(client, prefix=prefix_of(redis_store_url))
    await created(store)
    await store.close()
    assert await client.ping()
    decoding = Redis(decode_responses=True)
    with pytest.raises(StoreError, match="decode_responses=False"):
        RedisRunStore(decoding)
    with pytest.raises(StoreError, match=r"a URL or a redis\.asyncio\.Redis client"):
        RedisRunStore(7)  # type: ignore[arg-type]


async def test_a_run_that_another_runner_executes_is_busy(redis_store_url: str) -> None:
    second = WorkflowRunner(config=config_of(redis_store_url))
    async with WorkflowRunner(config=config_of(redis_store_url)) as runner, second:

        async def resume(context: WorkflowContext, config: object) -> dict[str, Any]:
            with pytest.raises(RunBusyError):
                await second.resume("r")
            return {"refused": True}

        workflow = Workflow("w", [Step.lambda_("resume", resume)])
        second.register(workflow)
        result = await runner.execute(workflow, run_id="r")
    assert result.context.get_output("resume", "refused") is True


async def test_another_runner_stops_and_follows_a_run(redis_store_url: str) -> None:
    begun = anyio.Event()

    async def wait(context: WorkflowContext, config: object) -> dict[str, Any]:
        begun.set()
        await anyio.sleep_forever()
        return {}

    workflow = Workflow("w", [Step.lambda_("wait", wait)])
    second = WorkflowRunner(config=config_of(redis_store_url), work=False)
    with anyio.fail_after(60):
        async with WorkflowRunner(config=config_of(redis_store_url)) as runner, second:
            handle = await runner.start(workflow, run_id="r")
            await begun.wait()
            assert await second.handle("r").stop("not needed")
            types = [each.event_type async for each in second.events("r", follow=True)]
            result = await handle.result()
    assert (result.status, types[-1]) == (RunStatus.STOPPED, "workflow_stopped")


async def test_what_needs_due_runs_is_refused_with_the_way_out(redis_store_url: str) -> None:
    waits = Workflow("waits", [Step.wait_for_signal("approve")])
    async with WorkflowRunner(config=config_of(redis_store_url)) as runner:
        with pytest.raises(StoreError, match="database"):
            await runner.enqueue(DOUBLES, params={"number": 4})
        result = await runner.execute(waits)
    assert result.status is RunStatus.FAILED
    assert "use a database" in str(result.error)


async def test_maps_waits_and_large_values_work(redis_store_url: str) -> None:
    async def grow(context: WorkflowContext, config: object) -> dict[str, Any]:
        return {"text": "ä" * 1_000_000}

    async def square(context: WorkflowContext, config: object) -> dict[str, Any]:
        return {"squared": context.params["number"] ** 2}

    item = Workflow("item", [Step.lambda_("square", square)])
    steps = [
        Step.lambda_("grow", grow),
        Step.wait("wait", 0.01),
        Step.map("all", items=range(300), item_param="number", iterator=item),
    ]
    async with WorkflowRunner(config=config_of(redis_store_url)) as runner:
        await runner.execute(Workflow("w", steps), run_id="r")
    async with WorkflowRunner(config=config_of(redis_store_url), work=False) as runner:
        record = await runner.get_run("r")
        checkpoints = await runner.list_checkpoints("r")
        last = await runner.get_checkpoint("r", "all[299]/square")
    assert record.status is RunStatus.COMPLETED
    assert [each.step_name for each in checkpoints][:3] == ["grow", "wait", "square"]
    assert last is not None
    assert last.context_snapshot["outputs"]["square"] == {"squared": 299**2}  # type: ignore[index]


def test_another_process_takes_over_the_run_of_a_killed_one_at_once(redis_store_url: str) -> None:
    check_take_over("redis", "redis_url", redis_store_url)


def test_a_missing_package_names_its_extra() -> None:
    program = """
        import sys
        class Hidden:
            def find_spec(self, name, path=None, target=None):
                if name == "redis" or name.startswith("redis."):
                    raise ModuleNotFoundError(name)
        import importlib.util
        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name, package=None: None if name == "redis" else find_spec(name, package)
        sys.meta_path.insert(0, Hidden())
        from spine_async import MissingExtraError, WorkflowRunner, WorkflowRunnerConfig
        try:
            WorkflowRunner(config=WorkflowRunnerConfig(checkpoint_storage="redis", redis_url="redis://localhost"))
        except MissingExtraError as exc:
            print(exc.extra, exc)
    """
    ended = run_python(program)
    assert ended.stdout.strip() == f"redis {MissingExtraError('the Redis store', 'redis')}", ended.stderr


@pytest.mark.parametrize(
    "url",
    ["", "http://host", "redis://u:geheim@host:port/0", "redis://u:geheim@host/x", "redis://u:geheim@host?colour=1"],
)
def test_an_invalid_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="accepted are redis://") as refused:
        RedisRunStore(url)
    assert "geheim" not in repr(refused.value)
    assert refused.value.__cause__ is None


def test_a_runner_without_a_url_is_refused() -> None:
    with pytest.raises(StoreError, match="checkpoint_storage='redis' needs redis_url"):
        WorkflowRunner(config=WorkflowRunnerConfig(checkpoint_storage="redis"))


@pytest.mark.parametrize("prefix", ["", "a{b}", "a\n"])
def test_an_invalid_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(StoreError, match="prefix"):
        RedisRunStore("redis://localhost", prefix=prefix)


async def test_a_server_that_cannot_be_reached_is_named_without_credentials() -> None:
    store = RedisRunStore("redis://user:geheim@127.0.0.1:1/3", timeout=1.0)
    with pytest.raises(StoreUnavailableError, match=r"Redis database 3 at 127\.0\.0\.1:1 cannot be reached") as refused:
        await store.load("r")
    assert "geheim" not in repr(refused.value) + repr(refused.value.__cause__) + store.location


async def test_a_wrong_password_is_an_error_at_once(redis_to_kill: RedisServer) -> None:
    url = redis_to_kill.url.replace("://", "://user:geheim@")
    with anyio.fail_after(20):
        with pytest.raises(StoreUnavailableError, match="refused the user name or the password") as refused:
            await RedisRunStore(url, timeout=60).load("r")
    assert "geheim" not in repr(refused.value)


async def test_a_user_needs_only_the_commands_that_the_page_lists(
    redis_to_kill: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    (commands,) = re.findall(r"^ACL SETUSER spine .*? (\+.*)$", PAGE.read_text(), re.MULTILINE)
    admin = Redis.from_url(redis_to_kill.url, driver_info=None)
    await admin.acl_setuser("spine", enabled=True, passwords="+secret", keys=["{spine}:*"], commands=commands.split())
    await admin.aclose()
    caplog.set_level(logging.WARNING)
    async with WorkflowRunner(config=config_of(redis_to_kill.url.replace("://", "://spine:secret@"))) as runner:
        result = await runner.execute(DOUBLES, params={"number": 4}, run_id="r")
        assert len([each async for each in runner.events("r")]) == 6
        assert [each.run_id for each in await runner.list_runs()] == ["r"]
        assert (await runner.count_runs())[RunStatus.COMPLETED] == 1
        await runner.delete_run("r")
    assert result.status is RunStatus.COMPLETED
    assert caplog.messages == []


async def test_settings_with_which_runs_are_lost_are_warned_of_once(
    redis_to_kill: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    admin = Redis.from_url(redis_to_kill.url, driver_info=None)
    store = RedisRunStore(redis_to_kill.url)
    await store.open()
    assert caplog.messages == []
    await store.close()
    await admin.config_set("maxmemory-policy", "allkeys-lru")
    await admin.config_set("appendonly", "no")
    store = RedisRunStore(redis_to_kill.url)
    for _ in range(2):
        await store.open()
        await created(store, new_run("r"))
        await store.close()
        assert await store.delete(["r"])
    await store.close()
    await admin.aclose()
    warned = [message.partition(": ")[0] for message in caplog.messages]
    assert len(warned) == 2
    assert "keeps nothing on its disk" in warned[0]
    assert "may remove runs when its memory is used up (maxmemory-policy allkeys-lru)" in caplog.messages[1]


async def test_a_full_server_is_an_error_and_loses_nothing(redis_to_kill: RedisServer) -> None:
    store = RedisRunStore(redis_to_kill.url)
    claim = await created(store)
    admin = Redis.from_url(redis_to_kill.url, driver_info=None)
    await admin.config_set("maxmemory", "1")
    made = change(claim, [visit("fetch", 2)])
    with pytest.raises(StoreUnavailableError, match="memory is used up"):
        await store.commit([made])
    await admin.config_set("maxmemory", "0")
    assert await store.commit([made]) == [CommitOutcome.COMMITTED]
    await admin.aclose()
    await store.close()


def test_a_store_serves_one_event_loop_after_the_other(redis_store_url: str) -> None:
    store = RedisRunStore(redis_store_url)

    async def use() -> None:
        await store.load("r")
        await store.close()

    anyio.run(use)
    anyio.run(use)


async def test_two_running_loops_do_not_share_a_store(redis_store_url: str) -> None:
    store = RedisRunStore(redis_store_url)
    await store.load("r")
    with pytest.raises(SharingError, match="another running event loop"):
        await anyio.to_thread.run_sync(lambda: anyio.run(store.load, "r"))
    await store.close()


async def test_the_example_of_the_specification_runs_on_redis(redis_store_url: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "checkpoint_every_step" in block]
    namespace: dict[str, Any] = {}
    exec(example.replace("redis://localhost:6379/0", redis_store_url), namespace)
    async with namespace["runner"] as runner:
        result = await runner.execute(DOUBLES, params={"number": 4}, run_id="r")
    async with WorkflowRunner(store=RedisRunStore(redis_store_url), work=False) as other:
        record = await other.get_run("r")
    assert (result.status, record.status) == (RunStatus.COMPLETED, RunStatus.COMPLETED)
