"""What the forms do."""

from __future__ import annotations

import httpx
import pytest

from spine_async import RunStatus, WorkflowRunner
from tests.dashboard.board import PREFIX, Board
from tests.dashboard.flows import FAILING, PLAIN, SCHEDULES, WAITING
from tests.plain_http import NO_CERTIFICATES
from tests.service.services import until

pytestmark = pytest.mark.anyio


async def test_stop_records_the_reason(board: Board) -> None:
    handle = await board.started(WAITING, RunStatus.WAITING)
    answer = await board.post("/run/stop", {"id": "r", "reason": "no longer wanted"})
    assert answer.headers["location"] == f"{PREFIX}/run?id=r&notice=stopping"
    assert (await handle.result(20)).stop_reason == "no longer wanted"
    again = await board.post("/run/stop", {"id": "r"})
    assert again.headers["location"] == f"{PREFIX}/run?id=r&notice=not-under-way"
    assert "had ended already" in await board.page("/run", id="r", notice="not-under-way")
    assert "nothing of this kind" not in await board.page("/run", id="r", notice="nothing of this kind")


async def test_resume_continues_with_other_params(board: Board) -> None:
    handle = await board.started(WAITING, RunStatus.WAITING)
    await board.post("/run/stop", {"id": "r"})
    await handle.result(20)
    answer = await board.post("/run/resume", {"id": "r", "params": '{"say": "changed"}'})
    assert answer.headers["location"] == f"{PREFIX}/run?id=r&notice=resumed"

    async def is_waiting() -> bool:
        return await handle.status() is RunStatus.WAITING

    await until(is_waiting)
    await board.post("/run/signal", {"id": "r", "name": "approval", "value": "true"})
    result = await handle.result(20)
    assert result.context.get_output("last", "said") == "changed"


async def test_fork_starts_a_new_run(board: Board) -> None:
    await board.started(PLAIN, RunStatus.COMPLETED, say="old")
    form = {"id": "r", "path": "second", "params": '{"say": "new"}', "new_id": "copy/1", "outputs": ""}
    answer = await board.post("/run/fork", form)
    assert answer.headers["location"] == f"{PREFIX}/run?id=copy%2F1&notice=forked"
    outputs = (await board.runner.handle("copy/1").result(20)).context.outputs
    assert outputs == {"first": {"said": "old"}, "second": {"said": "new"}}


async def test_a_signal_reaches_the_run_that_waits(board: Board) -> None:
    handle = await board.started(WAITING, RunStatus.WAITING)
    answer = await board.post("/run/signal", {"id": "r", "name": "approval", "value": '{"by": "Ada"}'})
    assert answer.headers["location"] == f"{PREFIX}/run?id=r&notice=signalled"
    assert (await handle.result(20)).context.get_output("approval", "value") == {"by": "Ada"}


async def test_schedules_are_paused_resumed_and_triggered(board: Board) -> None:
    name = SCHEDULES[1].name

    async def is_stored() -> bool:
        return len(await board.runner.list_schedules()) == 2

    await until(is_stored)
    assert (await board.post("/schedules/pause", {"name": name})).status_code == 303
    assert [each.is_paused for each in await board.runner.list_schedules()] == [False, True]
    assert "paused" in await board.page("/schedules")
    assert (await board.post("/schedules/resume", {"name": name})).status_code == 303
    assert [each.is_paused for each in await board.runner.list_schedules()] == [False, False]
    answer = await board.post("/schedules/trigger", {"name": name})
    assert answer.headers["location"].startswith(f"{PREFIX}/run?id=often")
    assert (await board.runner.list_runs(limit=1))[0].workflow_name == "plain"


@pytest.mark.parametrize(
    ("path", "form", "status", "problem"),
    [
        ("/run/stop", {"id": "unknown"}, 404, "is not stored"),
        ("/run/stop", {"reason": "x"}, 400, "id is empty"),
        ("/run/resume", {"id": "done"}, 409, "completed"),
        ("/run/resume", {"id": "failed", "params": "[1]"}, 400, "must be a JSON object"),
        ("/run/resume", {"id": "failed", "params": "{"}, 400, "params is not valid JSON"),
        ("/run/resume", {"id": "failed", "params": '{"a": NaN}'}, 400, "NaN is not JSON"),
        ("/run/resume", {"id": "foreign"}, 409, "does not know"),
        ("/run/fork", {"id": "done", "path": "nowhere"}, 400, "nowhere"),
        ("/run/fork", {"id": "done"}, 400, "path is empty"),
        ("/run/fork", {"id": "done", "path": "second", "new_id": "failed"}, 409, "failed"),
        ("/run/signal", {"id": "done", "name": "x", "value": "1"}, 409, "completed"),
        ("/run/signal", {"id": "failed", "name": "x", "value": "tru"}, 400, "value is not valid JSON"),
        ("/run/signal", {"id": "failed", "value": "1"}, 400, "name is empty"),
        ("/schedules/pause", {"name": "unknown"}, 404, "unknown"),
    ],
)
async def test_what_cannot_be_done_is_explained(
    board: Board, path: str, form: dict[str, str], status: int, problem: str
) -> None:
    await board.started(PLAIN, RunStatus.COMPLETED, "done")
    await board.started(FAILING, RunStatus.FAILED, "failed")
    await board.runner.enqueue("elsewhere", run_id="foreign")
    answer = await board.post(path, form)
    assert (answer.status_code, problem in answer.text) == (status, True), answer.text


async def test_a_get_request_does_nothing(board: Board) -> None:
    await board.started(WAITING, RunStatus.WAITING)
    assert (await board.get("/run/stop", id="r")).status_code == 405
    assert await board.runner.handle("r").status() is RunStatus.WAITING


async def test_a_runner_that_is_not_entered_can_be_looked_at(board: Board, runner: WorkflowRunner) -> None:
    """Only what executes runs in the background needs an entered runner."""
    await board.started(PLAIN, RunStatus.COMPLETED)
    other = WorkflowRunner(store=runner._runtime.store, workflows=[PLAIN], work=False)
    async with httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
        looking = Board(other, client)
        assert "second" in await looking.page("/run", id="r")
        answer = await looking.post("/run/fork", {"id": "r", "path": "second"})
        assert (answer.status_code, "needs an entered runner" in answer.text) == (400, True)
