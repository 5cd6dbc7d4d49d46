"""Live pages over a real server: streams of changes, their ends, and a mounted dashboard behind a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from spine_async import RunStatus, WorkflowRunner
from spine_async.dashboard import live
from spine_async.storage import MemoryRunStore
from tests.dashboard.board import PREFIX, Board, Elements, mounted
from tests.dashboard.flows import PLAIN, WAITING
from tests.plain_http import NO_CERTIFICATES
from tests.service.services import PATIENCE
from tests.web.sites import messages, serving_asgi

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(runner: WorkflowRunner) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with the mounted dashboard."""
    app = Starlette(routes=[Mount(PREFIX, mounted(runner))])
    async with (
        serving_asgi(app) as address,
        httpx.AsyncClient(verify=NO_CERTIFICATES, base_url=address + PREFIX, timeout=PATIENCE) as client,
    ):
        yield client


async def test_a_run_is_followed_to_its_end(board: Board) -> None:
    handle = await board.started(WAITING, RunStatus.WAITING)
    seen = (await handle.record()).last_seq
    async with serving(board.runner) as client:
        async with client.stream("GET", "/run/live", params={"id": "r", "after": str(seen)}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert "default-src 'none'" in response.headers["content-security-policy"]
            await handle.signal("approval")
            with anyio.fail_after(PATIENCE):
                found = [message async for message in messages(response)]
        assert [message.event for message in found] == ["change"] * (len(found) - 1) + ["end"]
        numbers = [message.id for message in found[:-1]]
        assert numbers == list(range(seen + 1, (await handle.record()).last_seq + 1))
        assert {str(message.data) for message in found} == {"{}"}, "a stream has no values"


async def test_a_stream_continues_with_the_last_event_id(board: Board) -> None:
    handle = await board.started(PLAIN, RunStatus.COMPLETED)
    last = (await handle.record()).last_seq
    async with serving(board.runner) as client:
        headers = {"Last-Event-ID": str(last - 2)}
        async with client.stream("GET", "/run/live", params={"id": "r", "after": "0"}, headers=headers) as response:
            found = [message async for message in messages(response)]
    assert [message.id for message in found] == [last - 1, last, None]


async def test_pages_about_all_runs_learn_of_changes(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PULSE", 0.02)
    async with serving(board.runner) as client, client.stream("GET", "/live") as response:
        found = messages(response)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(change_until_cancelled, board.runner)
                message = await anext(found)
                tasks.cancel_scope.cancel()
        assert (message.event, message.id) == ("change", None)


async def change_until_cancelled(runner: WorkflowRunner) -> None:
    """The server compares with what it saw first, which may be later than the start of the stream."""
    while True:
        await runner.enqueue(PLAIN, delay=3600)
        await anyio.sleep(0.05)


async def test_open_streams_do_not_hold_up_a_server_that_stops(board: Board) -> None:
    await board.started(WAITING, RunStatus.WAITING)
    with anyio.fail_after(PATIENCE):
        async with serving(board.runner) as client:
            async with client.stream("GET", "/run/live", params={"id": "r"}) as response:
                assert await anext(response.aiter_lines())
            async with client.stream("GET", "/live") as response:
                assert await anext(response.aiter_lines())


async def test_the_dashboard_itself_enters_its_runner() -> None:
    runner = WorkflowRunner(store=MemoryRunStore(), workflows=[PLAIN])
    async with (
        serving_asgi(mounted(runner)) as address,
        httpx.AsyncClient(verify=NO_CERTIFICATES, base_url=address) as client,
    ):
        await runner.enqueue(PLAIN, run_id="r")
        await runner.handle("r").result(PATIENCE)
        page = Elements((await client.get("/run", params={"id": "r"})).text)
        assert "/run/context?id=r" in page.links()


@pytest.mark.parametrize("prefix", ["", "/a", "/a/b c/<x>"])
async def test_links_keep_the_prefix_of_a_proxy(runner: WorkflowRunner, prefix: str) -> None:
    """A proxy that removes its prefix tells it as `root_path`, for instance by `uvicorn --root-path`."""
    transport = httpx.ASGITransport(mounted(runner), root_path=prefix)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for path in ("/", "/runs"):
            page = Elements((await client.get(path)).text)
            quoted = prefix.replace(" ", "%20").replace("<", "%3C").replace(">", "%3E")
            assert all(link.startswith((f"{quoted}/", "#")) for link in page.links()), page.links()
