"""Events of a run over HTTP: streams and documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import httpx

from tests.service.services import until
from tests.web.flows import SECRET
from tests.web.sites import Message, Site, messages, site_of

AS_JSON = {"Accept": "application/json"}


async def begin_chat(site: Site) -> str:
    """A run that emits three tokens, and the others when its gate is open; returns the path of its events."""
    answer = await site.client.post("/workflows/chat/runs", json={"params": {"gate": "g"}})
    return f"/runs/{answer.json()['run_id']}/events"


async def read_tokens(site: Site, path: str, count: int, after: int | None = None) -> tuple[list[Message], bool]:
    """The messages of a stream until it ends or `count` tokens are read; and whether it ended with `end`."""
    headers = {"Last-Event-ID": str(after)} if after is not None else {}
    read: list[Message] = []
    async with site.client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        async with aclosing(messages(response)) as found:
            async for message in found:
                if message.event == "end":
                    return read, True
                read.append(message)
                if len(tokens(read)) == count:
                    return read, False
    return read, False


def tokens(read: list[Message]) -> list[str]:
    return [each.data["metadata"]["data"]["text"] for each in read if each.data["event_type"] == "token"]


async def test_tokens_arrive_while_the_step_runs_and_the_stream_ends_with_the_run(site: Site) -> None:
    path = await begin_chat(site)
    first, _ = await read_tokens(site, path, 3)
    site.flows.notes.open_gate("g")
    rest, has_ended = await read_tokens(site, path, 99, after=first[-1].id)
    assert tokens(first + rest) == [f"{SECRET}-{number}" for number in range(6)]
    assert [each.id for each in first + rest] == list(range(1, len(first + rest) + 1))
    assert all(each.id == each.data["seq"] for each in first + rest)
    assert has_ended


async def test_a_browser_does_not_come_back_after_the_end(site: Site) -> None:
    run = await site.start(name="Ada")
    path = f"/runs/{run['run_id']}/events"
    all_events, has_ended = await read_tokens(site, path, 99)
    assert has_ended
    again = await site.client.get(path, headers={"Last-Event-ID": str(all_events[-1].id)})
    assert (again.status_code, again.content) == (204, b"")
    late, has_ended = await read_tokens(site, f"{path}?after={all_events[-2].id}", 99)
    assert ([each.id for each in late], has_ended) == ([all_events[-1].id], True)
    beyond, has_ended = await read_tokens(site, f"{path}?after=1000", 99)
    assert (beyond, has_ended) == ([], True)


async def test_events_are_a_document_on_request(site: Site) -> None:
    run = await site.start(name="Ada")
    path = f"/runs/{run['run_id']}/events"
    page = (await site.client.get(f"{path}?limit=2", headers=AS_JSON)).json()
    assert [each["seq"] for each in page["events"]] == [1, 2]
    rest = (await site.client.get(f"{path}?after={page['next_after']}", headers=AS_JSON)).json()
    assert rest["events"][-1]["event_type"] == "workflow_completed"
    empty = (await site.client.get(f"{path}?after={rest['next_after']}", headers=AS_JSON)).json()
    assert empty == {"events": [], "next_after": rest["next_after"]}
    for accept, kind in (
        ("text/event-stream", "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("application/json;q=0.5, text/event-stream", "text/event-stream"),
        ("text/event-stream;q=x, application/json; q=0.9", "application/json"),
    ):
        answer = await site.client.get(path, headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(kind), accept


async def lines_of(response: httpx.Response) -> AsyncGenerator[str, None]:
    async for line in response.aiter_lines():
        yield line


async def test_a_silent_stream_has_comments(site: Site) -> None:
    path = await begin_chat(site)
    lines: list[str] = []
    async with site.client.stream("GET", path) as response, aclosing(lines_of(response)) as found:
        async for line in found:
            lines.append(line)
            if lines.count(": ") == 3:
                break
    assert lines[0] == "retry: 1000"


async def test_a_client_that_is_gone_leaves_nothing_behind(site: Site) -> None:
    path = await begin_chat(site)
    for _ in range(5):
        await read_tokens(site, path, 3)

    await until(lambda: not site.runner._followers._followed)


async def test_a_stream_of_a_deleted_run_ends(site: Site) -> None:
    path = await begin_chat(site)

    async def delete() -> None:
        await site.runner.delete_run(path.split("/")[2], force=True)

    async with site.client.stream("GET", path) as response, aclosing(messages(response)) as found:
        await anext(found)
        await delete()
        assert [each async for each in found if each.event == "end"] == []
    assert (await site.client.get(path)).status_code == 404


async def test_many_readers_of_one_run_read_the_same(framework: str, database_url: str, tmp_path: Path) -> None:
    async with site_of(framework, database_url, tmp_path) as site:
        path = await begin_chat(site)
        readers = [asyncio.ensure_future(read_tokens(site, path, 99)) for _ in range(30)]
        site.flows.notes.open_gate("g")
        found = await asyncio.gather(*readers)
    assert {tuple(tokens(read)) for read, _ in found} == {tuple(f"{SECRET}-{number}" for number in range(6))}
    assert all(has_ended for _, has_ended in found)
