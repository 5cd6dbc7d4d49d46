"""What the pages show, over a store in memory."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from spine_async import RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async.storage import FileRunStore
from tests.dashboard.board import PREFIX, Board, Elements
from tests.dashboard.flows import FAILING, MAPPED, PLAIN, SECRET, STREAMING, WAITING
from tests.plain_http import NO_CERTIFICATES
from tests.service.services import until

pytestmark = pytest.mark.anyio


async def test_the_overview_counts_runs_and_shows_failures(board: Board) -> None:
    await board.started(PLAIN, RunStatus.COMPLETED, "a")
    await board.started(FAILING, RunStatus.FAILED, "b", say="why")
    await board.started(WAITING, RunStatus.WAITING, "c")
    page = Elements(await board.page("/"))
    assert "1 completed" in page.text
    assert "1 failed" in page.text
    assert "1 waiting" in page.text
    assert "failed with why" in page.text
    assert f"{PREFIX}/run?id=b" in page.links()


async def test_runs_are_filtered_and_paged(board: Board) -> None:
    for number in range(53):
        await board.runner.enqueue(PLAIN, run_id=f"late/{number:02}", queue="mail", key="k", delay=3600)
    await board.started(FAILING, RunStatus.FAILED, "other")
    first = Elements(await board.page("/runs", prefix="late/"))
    assert "late/52" in first.text
    assert "late/02" not in first.text
    assert "other" not in [text.strip() for text in first.texts]
    (following,) = [link for link in first.links() if "cursor=" in link]
    second = Elements((await board.client.get(following.removeprefix(PREFIX), headers={"Level": "all"})).text)
    shown = [text for text in second.texts if text.startswith("late/")]
    assert [text for text in shown if text != "late/"] == ["late/02", "late/01", "late/00"]
    assert "prefix=late%2F" in following
    oldest = Elements(await board.page("/runs", queue="mail", key="k", order="oldest"))
    assert next(text for text in oldest.texts if text.startswith("late/")) == "late/00"
    for query in ({"status": "failed"}, {"workflow": "failing"}, {"category": "DATA_QUALITY"}):
        page = Elements(await board.page("/runs", **query))
        assert "other" in page.texts, query
        assert "late/00" not in page.texts
    assert "No run matches." in await board.page("/runs", parent="nobody")


async def test_runs_are_filtered_by_time_partition_and_reason(board: Board) -> None:
    await board.runner.execute(PLAIN, run_id="mine", partition={"region": "EU", "day": 1})
    await board.runner.enqueue(PLAIN, run_id="later", delay=3600)
    await board.runner.stop("later", "not needed")
    for query, shown in (
        ({"partition": '{"day": 1}'}, "mine"),
        ({"reason": "not needed"}, "later"),
        ({"since": "2020-01-01T00:00", "ended_since": "2020-01-01T00:00", "workflow": "plain"}, "mine"),
    ):
        page = Elements(await board.page("/runs", **query))
        assert shown in page.texts, query
        assert all(each in [field.get("value") for field in page.named("input")] for each in query.values())
    for query in ({"partition": '{"day": 2}'}, {"until": "2020-01-01T00:00"}, {"ended_until": "2020-01-01T00:00:00"}):
        assert "No run matches." in await board.page("/runs", **query)
    refused = await board.get("/runs", partition='{"day": 1}', level="read")
    assert refused.status_code == 400
    assert "hidden from readers" in refused.text
    readers = Elements(await board.page("/runs", level="read"))
    assert "partition" not in [field.get("name") for field in readers.named("input")]


async def test_only_a_step_under_way_shows_its_progress(board: Board) -> None:
    async def partly(context: WorkflowContext, config: Any) -> None:
        context.progress(3, 7)

    ended = Workflow("ended", [Step.lambda_("partly", partly)])
    await board.started(ended, RunStatus.COMPLETED)
    assert "step_progress" in await board.page("/run/events", id="r")
    page = Elements(await board.page("/run", id="r"))
    assert "partly" in page.text
    assert "3 of 7" not in page.text


async def test_a_run_shows_its_steps_times_and_error(board: Board) -> None:
    await board.started(FAILING, RunStatus.FAILED, say="why")
    text = await board.page("/run", id="r")
    page = Elements(text)
    assert "DATA_QUALITY in breaks" in page.text
    assert "failed with why" in page.text
    boxes = [each["class"] for each in page.named("g")]
    assert boxes == ["box kind-lambda state-completed", "box kind-lambda state-failed"]
    assert len([each for each in page.named("svg") if each["class"] == "bar"]) == 2
    assert "workflow_failed" in page.text
    assert f"{PREFIX}/run/resume" in page.links()
    assert f"{PREFIX}/run/stop" not in page.links()


async def test_a_run_of_an_unknown_workflow_has_no_graph(board: Board) -> None:
    await board.runner.enqueue("elsewhere", run_id="r")
    page = Elements(await board.page("/run", id="r"))
    assert "does not know the workflow" in page.text
    assert "No step has started yet." in page.text
    assert "pending" in page.text


async def test_a_waiting_run_shows_the_signal_and_has_a_form_for_it(board: Board) -> None:
    await board.started(WAITING, RunStatus.WAITING)
    page = Elements(await board.page("/run", id="r"))
    assert "Waits for a signal" in page.text
    assert {"name": "name", "required": None, "value": "approval", "list": "signals"} in page.named("input")
    waits = Elements(await board.page("/signals"))
    assert "approval" in waits.text
    assert f"{PREFIX}/run/signal" in waits.links()


async def test_the_context_shows_what_each_step_has_added(board: Board) -> None:
    await board.started(PLAIN, RunStatus.COMPLETED, say="hello")
    page = Elements(await board.page("/run/context", id="r"))
    assert '"say": "hello"' in page.text
    assert page.text.count('"said": "hello"') == 2
    assert "output of" in page.text


async def test_the_context_of_a_run_that_has_not_begun_shows_its_params(board: Board) -> None:
    await board.runner.enqueue(PLAIN, run_id="r", params={"say": "later"}, delay=3600)
    page = Elements(await board.page("/run/context", id="r"))
    assert '"say": "later"' in page.text
    assert "No step has finished" in page.text


async def test_a_map_is_a_strip_with_its_failed_items(board: Board) -> None:
    await board.started(MAPPED, RunStatus.COMPLETED)
    assert f"{PREFIX}/run/map?id=r&path=each" in Elements(await board.page("/run", id="r")).links()
    page = Elements(await board.page("/run/map", id="r", path="each"))
    assert "12 items" in page.text
    assert "10 completed" in page.text
    assert "2 failed" in page.text
    cells = [each["class"] for each in page.named("rect")]
    assert cells == ["cell-failed", "cell-failed"]
    assert f"{PREFIX}/run/map?id=r&path=each&item=7" in page.links()
    one = Elements(await board.page("/run/map", id="r", path="each", item="2"))
    assert "Item 2" in one.text
    assert "DATA_QUALITY" in one.text
    other = Elements(await board.page("/run/map", id="r", path="each", item="3"))
    assert "each[3]/item" in other.text
    assert "No step of this item has finished yet." in await board.page("/run/map", id="r", path="each", item="99")
    assert "0 items" in Elements(await board.page("/run/map", id="r", path="nothing")).text


async def test_events_are_paged(board: Board) -> None:
    handle = await board.started(STREAMING, RunStatus.WAITING)
    page = Elements(await board.page("/run/events", id="r"))
    assert "workflow_started" in page.text
    assert f'"text": "{SECRET}"' in page.text
    last = (await handle.record()).last_seq
    rest = Elements(await board.page("/run/events", id="r", after=str(last - 1)))
    assert "workflow_started" not in rest.text
    assert "There are no further events." in await board.page("/run/events", id="r", after=str(last))


async def test_queues_schedules_and_workers(board: Board) -> None:
    await board.runner.enqueue(PLAIN, queue="mail", delay=3600)
    await board.runner.enqueue(PLAIN, queue="forgotten", delay=3600)

    async def is_listed() -> bool:
        return any(each.listed_at for each in await board.runner.queues() if each.name == "mail")

    await until(is_listed)
    queues = Elements(await board.page("/queues"))
    for text in ("5 at once", "4 per process", "2 per key", "100 per 1 min", "by nobody", "forgotten", "idle"):
        assert text in queues.text
    schedules = Elements(await board.page("/schedules"))
    assert "0 3 * * *" in schedules.text
    assert "every 1 d" in schedules.text
    assert "No process executes a run at present." in Elements(await board.page("/workers")).text


async def test_children_and_forks_lead_to_each_other(board: Board) -> None:
    await board.started(PLAIN, RunStatus.COMPLETED, "origin")
    await (await board.runner.fork("origin", "second", new_run_id="copy")).result()
    page = Elements(await board.page("/run", id="copy"))
    assert f"{PREFIX}/run?id=origin" in page.links()


async def test_htmx_gets_the_changing_part_only(board: Board) -> None:
    await board.started(WAITING, RunStatus.WAITING)
    whole = Elements(await board.page("/run", id="r"))
    (address,) = [each["hx-get"] for each in whole.named("div") if each.get("hx-get")]
    assert address == f"{PREFIX}/run?id=r"
    answer = await board.client.get("/run", params={"id": "r"}, headers={"HX-Request": "true"})
    part = Elements(answer.text)
    assert "<html" not in answer.text
    assert "Timeline" in part.text
    assert part.named("form") == []


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/run", {"id": "unknown"}, 404),
        ("/run", {}, 404),
        ("/run/context", {"id": "unknown"}, 404),
        ("/run/map", {"id": "unknown", "path": "each"}, 404),
        ("/run/live", {"id": "unknown"}, 404),
        ("/run/live", {"id": "r", "after": "x"}, 400),
        ("/run/events", {"id": "r", "after": "-1"}, 400),
        ("/run/events", {"id": "r", "after": "9" * 30}, 400),
        ("/run", {"id": "x" * 1000}, 400),
        ("/run", {"id": "a\x00b"}, 400),
        ("/runs", {"status": "sleeping"}, 400),
        ("/runs", {"cursor": "nonsense"}, 400),
        ("/runs", {"prefix": "\x00"}, 400),
        ("/runs", {"since": "yesterday"}, 400),
        ("/runs", {"partition": "EU"}, 400),
        ("/runs", {"partition": "[1]"}, 400),
        ("/signals", {"cursor": "nonsense"}, 400),
        ("/nothing", {}, 404),
        ("/static/nothing.js", {}, 404),
        ("/static/..%2fsite.py", {}, 404),
    ],
)
async def test_wrong_addresses_are_answered_with_the_way_out(
    board: Board, path: str, query: dict[str, str], status: int
) -> None:
    await board.started(PLAIN, RunStatus.COMPLETED)
    answer = await board.get(path, **query)
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text


async def test_a_store_without_schedules_and_queues_says_so(tmp_path: object) -> None:
    async with (
        WorkflowRunner(store=FileRunStore(str(tmp_path)), workflows=[PLAIN]) as runner,
        httpx.AsyncClient(verify=NO_CERTIFICATES) as client,
    ):
        board = Board(runner, client)
        await runner.execute(PLAIN, run_id="r")
        answer = await board.get("/schedules")
        assert answer.status_code == 501
        assert "keeps no schedules" in answer.text
        for path in ("/", "/runs", "/queues", "/workers", "/signals"):
            await board.page(path)
        assert "second" in await board.page("/run", id="r")


async def test_a_failed_run_shows_its_traceback_without_messages(board: Board) -> None:
    handle = await board.started(FAILING, RunStatus.FAILED, say=SECRET)
    (trace,) = [each async for each in handle.events() if "traceback" in each.metadata]
    text = str(trace.metadata["traceback"])
    assert trace.event_type == "step_failed"
    assert SECRET not in text
    assert "flows.py" in text
    page = await board.page("/run", id="r")
    assert "in fail" in page
    assert "flows.py" not in await board.page("/run/events", id="r")
    assert "flows.py" not in await board.page("/run", id="r", level="read")


async def test_the_traceback_of_an_item_is_stored_once(board: Board) -> None:
    async def break_item(context: WorkflowContext, config: Any) -> None:
        raise ValueError("x" * 5000)

    flow = Workflow("breaks", [Step.map("each", items=[1], iterator=break_item)])
    handle = await board.started(flow, RunStatus.FAILED)
    traced = [event.path async for event in handle.events() if "traceback" in event.metadata]
    assert traced == ["each[0]/item"]
    assert "in break_item" in await board.page("/run", id="r")


async def test_large_values_are_cut(board: Board) -> None:
    async def write(context: WorkflowContext, config: Any) -> dict[str, object]:
        return {"text": "x" * int(str(context.params["size"]))}

    flow = Workflow("writes", [Step.lambda_("write", write)])
    await board.started(flow, RunStatus.COMPLETED, "long", size=100_000)
    await board.started(flow, RunStatus.COMPLETED, "huge", size=2_000_000)
    page = await board.page("/run/context", id="long")
    assert len(page) < 50_000
    assert "more characters" in page
    huge = await board.page("/run/context", id="huge")
    assert len(huge) < 50_000
    assert "too large for a page" in huge
