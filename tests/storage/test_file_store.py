"""The file store: files that a person can read, several processes, torn lines, locks, the index."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from spine_async import (
    CorruptRecordError,
    RunBusyError,
    RunStatus,
    Step,
    StoreUnavailableError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async._model.run_filter import RunFilter
from spine_async.errors import StoreError
from spine_async.ports import CommitOutcome
from spine_async.storage import FileRunStore, boot_clock
from spine_async.storage.file.folder import LOG, folder_name
from spine_async.storage.file.index import INDEX
from spine_async.testing.conformance.rows import change, created, new_run, visit
from tests.interpreter import ROOT, environment
from tests.storage.killed_run import check_take_over

pytestmark = pytest.mark.anyio


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
async def store(base: Path) -> AsyncIterator[FileRunStore]:
    store = FileRunStore(base, timeout=0.2)
    yield store
    await store.close()


@pytest.fixture
async def other(base: Path) -> AsyncIterator[FileRunStore]:
    """The store of another runner on the same folder."""
    store = FileRunStore(base, timeout=0.2)
    yield store
    await store.close()


def log_of(base: Path, run_id: str) -> Path:
    return base / folder_name(run_id) / LOG


def lines_of(base: Path, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_of(base, run_id).read_text().splitlines()]


async def double(context: WorkflowContext, config: object) -> dict[str, Any]:
    return {"doubled": 2 * context.params["number"]}


DOUBLES = Workflow("doubles", [Step.lambda_("first", double), Step.lambda_("second", double)])


def config_of(base: Path) -> WorkflowRunnerConfig:
    return WorkflowRunnerConfig(checkpoint_storage="file", checkpoint_dir=str(base))


async def test_the_log_tells_a_reader_what_happened(base: Path) -> None:
    async with WorkflowRunner(config=config_of(base)) as runner:
        result = await runner.execute(DOUBLES, params={"number": 4}, run_id="order 7/ä")
    assert result.status is RunStatus.COMPLETED
    lines = lines_of(base, "order 7/ä")
    assert [line["call"] for line in lines] == ["create", "commit", "commit"]
    assert lines[0]["run"]["run_id"] == "order 7/ä"
    assert json.loads(lines[0]["run"]["params"]) == {"number": 4}
    assert json.loads(lines[1]["visits"][0]["output"]) == {"doubled": 8}
    assert lines[2]["end"]["status"] == "completed"


async def test_files_are_private(base: Path) -> None:
    umask = os.umask(0)
    try:
        async with WorkflowRunner(config=config_of(base)) as runner:
            await runner.execute(DOUBLES, params={"number": 4}, run_id="r")
    finally:
        os.umask(umask)
    modes = {stat.S_IMODE(each.stat().st_mode) for each in base.rglob("*") if each.is_file()}
    folders = {stat.S_IMODE(each.stat().st_mode) for each in (base, base / folder_name("r"))}
    assert (modes, folders) == ({0o600}, {0o700})


async def test_a_torn_line_is_dropped_and_the_commit_made_again(store: FileRunStore, base: Path) -> None:
    claim = await created(store, new_run("r"))
    done = change(claim, [visit("fetch", 2)])
    await store.commit([done])
    whole = log_of(base, "r").read_bytes()
    log_of(base, "r").write_bytes(whole[:-5])
    store = FileRunStore(base)
    assert await store.visits("r") == []
    assert await store.commit([done]) == [CommitOutcome.COMMITTED]
    assert log_of(base, "r").read_bytes() == whole


async def test_blocks_that_never_reached_the_disk_are_a_torn_line(store: FileRunStore, base: Path) -> None:
    claim = await created(store, new_run("r"))
    whole = log_of(base, "r").read_bytes()
    log_of(base, "r").write_bytes(whole + b"\x00" * 100 + b"}\n")
    store = FileRunStore(base)
    assert await store.commit([change(claim, [visit("fetch", 2)])]) == [CommitOutcome.COMMITTED]
    assert b"\x00" not in log_of(base, "r").read_bytes()
    assert [each.path for each in await store.visits("r")] == ["fetch"]


async def test_a_creation_that_was_torn_is_no_run(store: FileRunStore, base: Path) -> None:
    await created(store, new_run("r"))
    log_of(base, "r").write_bytes(log_of(base, "r").read_bytes()[:-5])
    store = FileRunStore(base)
    assert await store.load("r") is None
    assert await store.runs(RunFilter()) == []
    assert (await store.create([new_run("r")]))[0] is not None
    assert [each.run_id for each in await store.runs(RunFilter())] == ["r"]


async def test_a_changed_line_is_reported_and_harms_no_other_run(store: FileRunStore, base: Path) -> None:
    claim = await created(store, new_run("bad"))
    await created(store, new_run("good"))
    await store.commit([change(claim, [visit("fetch", 2)])])
    log_of(base, "bad").write_text(log_of(base, "bad").read_text().replace("fetch", "fitch"))
    store = FileRunStore(base)
    with pytest.raises(CorruptRecordError, match="bad"):
        await store.load("bad")
    assert await store.load("good") is not None
    with pytest.raises(CorruptRecordError):
        await store.runs(RunFilter())
    assert [each.run_id for each in await store.runs(RunFilter(skips_unreadable=True))] == ["good"]


async def test_a_log_of_a_newer_version_is_refused(store: FileRunStore, base: Path) -> None:
    await created(store, new_run("r"))
    line = lines_of(base, "r")[0]
    del line["crc"]
    from spine_async.storage.file.log import _line  # noqa: PLC0415 - writes what another version would write

    log_of(base, "r").write_bytes(_line({**line, "format": 99}))
    with pytest.raises(StoreError, match="newer version of spine_async"):
        await FileRunStore(base).load("r")


async def test_stores_on_one_folder_see_each_other_and_the_epoch_decides(
    store: FileRunStore, other: FileRunStore
) -> None:
    claim = await created(store, new_run("r"))
    await store.commit([change(claim, [visit("fetch", 2)])])
    assert [each.path for each in await other.visits("r")] == ["fetch"]
    taken = await other.claim("r", "somebody else", None, ttl=15, over_epoch=1)
    assert await store.commit([change(claim, [visit("late", 4)])]) == [CommitOutcome.FENCED]
    assert (await store.renew([claim], 15))[0].is_held is False
    assert getattr(taken, "epoch", None) == 2


async def test_a_renewal_is_seen_by_others(store: FileRunStore, other: FileRunStore) -> None:
    claim = await created(store, new_run("r", ttl=0.001))
    await store.renew([claim], 1000)
    run = await other.load("r")
    assert run is not None
    assert run.is_leased
    busy = await other.claim("r", "somebody else", None, ttl=15)
    assert getattr(busy, "owner", None) == claim_owner(run.owner)


def claim_owner(owner: str | None) -> str:
    assert owner is not None
    return owner


async def test_a_lease_ends_with_the_boot(store: FileRunStore, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = await created(store, new_run("r", ttl=1000))
    await store.renew([claim], 1000)
    monkeypatch.setattr(boot_clock, "_boot_id", lambda: "another boot")
    run = await FileRunStore(base).load("r")
    assert run is not None
    assert not run.is_leased


async def test_a_removed_run_can_be_created_again_and_the_old_claim_is_void(
    store: FileRunStore, other: FileRunStore, base: Path
) -> None:
    claim = await created(store, new_run("r"))
    assert await other.delete(["r"])
    assert await store.load("r") is None
    assert await store.runs(RunFilter()) == []
    await created(other, new_run("r"))
    assert await store.commit([change(claim, [visit("fetch", 2)])]) == [CommitOutcome.FENCED]
    assert sorted(each.name for each in base.iterdir()) == [folder_name("r"), INDEX]


async def test_a_listing_of_ended_runs_opens_no_folders(store: FileRunStore, base: Path) -> None:
    async with WorkflowRunner(config=config_of(base)) as runner:
        for number in range(5):
            await runner.execute(DOUBLES, params={"number": number}, run_id=f"r{number}")
    chosen = RunFilter(status=RunStatus.FAILED)
    folder = base / folder_name("r0")
    folder.rename(base / "elsewhere")
    assert await store.runs(chosen) == []
    assert {each.run_id for each in await store.runs(RunFilter())} == {f"r{number}" for number in range(1, 5)}


async def test_the_index_is_made_anew_after_a_restart_of_the_host(
    store: FileRunStore, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await created(store, new_run("r0"))
    async with WorkflowRunner(config=config_of(base)) as runner:
        await runner.execute(DOUBLES, params={"number": 1}, run_id="r1")
    (base / INDEX).write_bytes((base / INDEX).read_bytes()[:100])
    monkeypatch.setattr(boot_clock, "_boot_id", lambda: "another boot")
    assert {each.run_id for each in await FileRunStore(base).runs(RunFilter())} == {"r0", "r1"}


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\x00" * 200, b'{"crc":"00000000","boot":1}\n'])
async def test_a_damaged_index_is_made_anew(store: FileRunStore, base: Path, content: bytes) -> None:
    await created(store, new_run("r0"))
    (base / INDEX).write_bytes(content)
    assert [each.run_id for each in await store.runs(RunFilter())] == ["r0"]
    assert [each.run_id for each in await FileRunStore(base).runs(RunFilter())] == ["r0"]


async def test_the_index_is_rewritten_when_most_lines_are_old(
    store: FileRunStore, other: FileRunStore, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spine_async.storage.file import index  # noqa: PLC0415

    monkeypatch.setattr(index, "_REWRITE_LINES", 3)
    for number in range(20):
        await created(store, new_run("r"))
        assert len(await other.runs(RunFilter())) == 1
        assert await store.delete(["r"]), number
    assert len((base / INDEX).read_text().splitlines()) < 10
    assert await other.runs(RunFilter()) == []


async def test_a_full_disk_loses_nothing(store: FileRunStore, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = await created(store, new_run("r"))

    def no_space(descriptor: int, data: bytes) -> int:
        if len(data) > 10:
            return os.pwrite(descriptor, data[:10], os.fstat(descriptor).st_size)
        raise OSError(28, "No space left on device")

    before = log_of(base, "r").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("spine_async.storage.file.log.os.write", no_space)
        with pytest.raises(StoreUnavailableError, match="No space left"):
            await store.commit([change(claim, [visit("fetch", 2)])])
    assert log_of(base, "r").read_bytes() == before
    assert await store.commit([change(claim, [visit("fetch", 2)])]) == [CommitOutcome.COMMITTED]


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with WorkflowRunner(config=config_of(tmp_path / "file" / "runs")) as runner:
        with pytest.raises(StoreUnavailableError, match="file/runs"):
            await runner.execute(DOUBLES, params={"number": 4})


def start_python(program: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, args)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


HOLDS_LOCK = """
    import sys, time
    from pathlib import Path
    from spine_async.storage.file.lock import locked
    with locked(Path(sys.argv[1]), is_created=False, timeout=5):
        print("locked", flush=True)
        {then}
"""


@pytest.mark.allow_blocking
async def test_a_lock_that_another_process_keeps_is_an_error_and_ends_with_that_process(
    store: FileRunStore, base: Path
) -> None:
    claim = await created(store, new_run("r"))
    process = start_python(HOLDS_LOCK.format(then="time.sleep(600)"), log_of(base, "r"))
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(StoreUnavailableError, match="another process has locked"):
        await store.commit([change(claim, [visit("fetch", 2)])])
    process.kill()
    process.communicate()
    assert await store.commit([change(claim, [visit("fetch", 2)])]) == [CommitOutcome.COMMITTED]


@pytest.mark.allow_blocking
async def test_a_child_does_not_inherit_a_lock(store: FileRunStore, base: Path) -> None:
    claim = await created(store, new_run("r"))
    fork = "import os; os.fork() == 0 and (print('forked', os.getpid(), flush=True), time.sleep(600)); os._exit(0)"
    process = start_python(HOLDS_LOCK.format(then=fork), log_of(base, "r"))
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    child = int(process.stdout.readline().split()[1])
    process.wait(20)
    try:
        assert await store.commit([change(claim, [visit("fetch", 2)])]) == [CommitOutcome.COMMITTED]
    finally:
        os.kill(child, 9)
        process.communicate()


@pytest.mark.allow_blocking
def test_another_process_takes_over_the_run_of_a_killed_one_at_once(base: Path) -> None:
    check_take_over("file", "checkpoint_dir", base)


async def test_a_run_that_another_runner_executes_is_busy(base: Path) -> None:
    second = WorkflowRunner(config=config_of(base))
    async with WorkflowRunner(config=config_of(base)) as runner, second:

        async def resume(context: WorkflowContext, config: object) -> dict[str, Any]:
            with pytest.raises(RunBusyError):
                await second.resume("r")
            return {"refused": True}

        workflow = Workflow("w", [Step.lambda_("resume", resume)])
        second.register(workflow)
        result = await runner.execute(workflow, run_id="r")
    assert result.context.get_output("resume", "refused") is True


async def test_what_needs_due_runs_is_refused_with_the_way_out(base: Path) -> None:
    waits = Workflow("waits", [Step.wait_for_signal("approve")])
    async with WorkflowRunner(config=config_of(base)) as runner:
        with pytest.raises(StoreError, match="database"):
            await runner.enqueue(DOUBLES, params={"number": 4})
        result = await runner.execute(waits)
    assert result.status is RunStatus.FAILED
    assert "use a database" in str(result.error)


async def test_maps_waits_and_large_values_work(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def grow(context: WorkflowContext, config: object) -> dict[str, Any]:
        return {"text": "ä" * 1_000_000}

    async def square(context: WorkflowContext, config: object) -> dict[str, Any]:
        return {"squared": context.params["number"] ** 2}

    item = Workflow("item", [Step.lambda_("square", square)])
    steps = [
        Step.lambda_("grow", grow),
        Step.wait("wait", 0.01),
        Step.map("all", items=range(30), item_param="number", iterator=item),
    ]
    with caplog.at_level(logging.WARNING):
        async with WorkflowRunner(config=config_of(base)) as runner:
            await runner.execute(Workflow("w", steps), run_id="r")
        async with WorkflowRunner(config=config_of(base)) as runner:
            record = await runner.get_run("r")
            checkpoints = await runner.list_checkpoints("r")
    assert record.status is RunStatus.COMPLETED
    assert [each.step_name for each in checkpoints][:2] == ["grow", "wait"]
    assert caplog.records == []
