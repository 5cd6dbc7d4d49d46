"""Databases that cannot be used, and unusual run ids."""

import socket
import traceback
from pathlib import Path
from typing import Any

import anyio
import pytest

from spine_async import (
    SpineError,
    Step,
    StoreError,
    StoreUnavailableError,
    Workflow,
    WorkflowRunner,
    WorkflowRunnerConfig,
)

pytestmark = pytest.mark.anyio

CALLS: list[str] = []
WORKFLOW = Workflow("w", [Step.lambda_("a", lambda context, config: CALLS.append(context.run_id))])


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def runner_on(url: str) -> WorkflowRunner:
    return WorkflowRunner(config=WorkflowRunnerConfig(database_url=url))


async def refused(url: str) -> SpineError:
    with anyio.fail_after(60):
        async with runner_on(url) as runner:
            with pytest.raises(SpineError) as raised:
                await runner.execute(WORKFLOW)
    assert CALLS == []
    return raised.value


async def test_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    error = await refused(f"postgresql+asyncpg://reader:hunter2@127.0.0.1:{unused_tcp_port}/runs")
    assert isinstance(error, StoreUnavailableError)
    text = "".join(traceback.format_exception(error))
    assert "127.0.0.1" in str(error)
    assert "hunter2" not in text


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(b"this is no database, but a text that somebody left here\n" * 200)
    error = await refused(f"sqlite+aiosqlite:///{path}")
    assert isinstance(error, StoreError)
    assert "runs.db" in str(error)
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    error = await refused(f"sqlite+aiosqlite:///{tmp_path}")
    assert isinstance(error, StoreError)
    assert tmp_path.name in str(error)


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    error = await refused(f"sqlite+aiosqlite:///{tmp_path / 'taken' / 'runs.db'}")
    assert isinstance(error, StoreError)
    assert "taken" in str(error)


async def test_a_place_where_nobody_may_write() -> None:
    error = await refused("sqlite+aiosqlite:////proc/spine/runs.db")
    assert isinstance(error, StoreError)
    assert "/proc/spine" in str(error)


@pytest.mark.parametrize("url", ["not a url", "mysql+aiomysql://u:hunter2@h/d", "oracle://u:hunter2@h/d"])
async def test_a_url_that_is_none_of_ours(url: str) -> None:
    with pytest.raises((SpineError, ValueError), match=r"sqlite") as raised:
        async with runner_on(url) as runner:
            await runner.execute(WORKFLOW)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "run_id",
    [
        "",
        " ",
        "../../etc/passwd",
        "a/b",
        'it\'s "quoted"; DROP TABLE core_workflow_runs; --',
        "x" * 10_000,
        "line\nbreak",
        "nul\x00",
        "surrogate\ud800",
    ],
)
async def test_an_odd_run_id_works_or_is_refused(open_runner: Any, run_id: str) -> None:
    runner = await open_runner()
    refusal: SpineError | None = None
    try:
        result = await runner.execute(WORKFLOW, run_id=run_id)
    except SpineError as error:
        refusal = error
    if refusal is not None:
        assert CALLS == []
        assert "run" in str(refusal)
        assert len(str(refusal)) < 1_000
        assert await runner.list_runs() == []
        return
    assert result.run_id == run_id
    assert (await runner.get_run(run_id)).status == "completed"
    assert [run_id] == CALLS


@pytest.mark.parametrize("run_id", ["order-17", "2026-01-02", "0e8f6a7c-55a0-4f6b-9c06-6d6ad5c5a6a5", "daily_load.v2"])
async def test_an_ordinary_run_id_works(open_runner: Any, run_id: str) -> None:
    runner = await open_runner()
    result = await runner.execute(WORKFLOW, run_id=run_id)
    assert result.run_id == run_id
    assert (await runner.get_run(run_id)).run_id == run_id
