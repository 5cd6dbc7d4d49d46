"""Requests that are wrong or hostile get a problem document, and harm nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from spine_async import WorkflowRunner
from tests.web.flows import HOSTILE
from tests.web.sites import Site, site_of

RUN = "/runs/r1"
START = "/workflows/greet/runs"
JSON = {"Content-Type": "application/json"}
QUERIES = ["queue=%00", "queue=", "queue=q&priority=x", "queue=q&delay=-1", "queue=q&key=%0a"]
BODIES: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"{", JSON, 400, "malformed-body"),
    (b"\xff", JSON, 400, "malformed-body"),
    (b'{"params": {"name": NaN}}', JSON, 400, "malformed-body"),
    (b'{"params": {"name": "\\ud800"}}', JSON, 400, "malformed-body"),
    (b'{"params": ' + b"[" * 100_000, JSON, 400, "malformed-body"),
    (b'{"params": {"name": "x", "n": ' + b"9" * 5000 + b"}}", JSON, 400, "malformed-body"),
    (b'{"params": {"name": "x", "n": 1e999}}', JSON, 422, "invalid-value"),
    (b"[]", JSON, 422, "invalid-request"),
    (b"null", JSON, 422, "invalid-request"),
    (b'{"params": []}', JSON, 422, "invalid-request"),
    (b'{"parms": {}}', JSON, 422, "invalid-request"),
    (b'{"params": {}}', JSON, 422, "invalid-params"),
    (b'{"params": {"name": "x", "times": 0}}', JSON, 422, "invalid-params"),
    (b'{"params": {"name": "x"}}', {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
    (b'{"params": {"name": "x"}}', {}, 415, "unsupported-media-type"),
    (b"", {"Origin": "https://evil.example"}, 415, "unsupported-media-type"),
    (b'{"params": {"name": "' + b"x" * 2_000_000 + b'"}}', JSON, 413, "body-too-large"),
    (b"{}", {**JSON, "Idempotency-Key": ""}, 422, "invalid-request"),
    (b"{}", {**JSON, "Idempotency-Key": "k" * 256}, 422, "invalid-request"),
]
PATHS = [
    f"{RUN}?wait=-1",
    f"{RUN}?wait=61",
    f"{RUN}?wait=nan",
    f"{RUN}?wait=inf",
    f"{RUN}?wait=x",
    f"{RUN}?wait=1&wait=2",
    f"{RUN}/events?after=-1",
    f"{RUN}/events?after={10**30}",
    f"{RUN}/events?limit=1001",
    "/runs?status=broken",
    "/runs?stauts=failed",
    "/runs?limit=0",
    "/runs?limit=1e9",
    "/runs?order=random",
    "/runs?cursor=none",
    "/runs?with_params=maybe",
    "/runs?created_after=today",
    "/runs?created_after=2026-01-01T00:00:00",
    "/runs?created_after=0001-01-01T00:00:00%2B23:59",
    "/runs?workflow_name=%00",
    "/runs?partition=EU",
    "/runs?partition=[1]",
    "/runs?partition=%7B%22day%22:NaN%7D",
    "/runs?partition=%7B%22day%22:1",
    "/runs/%00",
    "/runs/%0a/events",
    "/runs/" + "x" * 201,
]


async def test_a_body_that_is_wrong(site: Site) -> None:
    for body, headers, status, slug in BODIES:
        answer = await site.client.post(START, content=body, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:spine-async:problem:{slug}"), body[:50]
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.content) < 3000
    assert (await site.client.get("/runs")).json()["runs"] == []


async def test_an_unknown_name_is_answered_with_the_known_ones(site: Site) -> None:
    body = (await site.client.post(START, json={"name": "Ada"})).json()
    assert body["errors"] == [{"location": "name", "message": "unknown; the names are params, partition"}]
    query = (await site.client.get("/runs?stauts=failed")).json()
    assert query["detail"].startswith("the query is invalid: stauts: unknown; the names are workflow_name, status,")


async def test_a_body_in_pieces_is_bounded_too(site: Site) -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b" " * 100_000

    answer = await site.client.post(START, content=pieces(20), headers=JSON)
    assert answer.status_code == 413
    with suppress(httpx.TransportError):  # a server may close the connection instead of reading on
        answer = await site.client.post(START, content=pieces(200), headers=JSON)
    assert answer.status_code == 413
    assert (await site.client.get("/runs")).status_code == 200


async def test_a_page_of_the_same_origin_may_send_no_body(site: Site) -> None:
    run = (await site.client.post("/workflows/approval/runs")).json()["run_id"]
    host = f"{site.client.base_url.host}:{site.client.base_url.port}"
    own = await site.client.post(f"/runs/{run}/stop", headers={"Origin": f"http://{host}"})
    assert own.status_code == 200


async def test_a_query_or_a_path_that_is_wrong(site: Site) -> None:
    for path in PATHS:
        answer = await site.client.get(path)
        assert answer.status_code == 422, (path, answer.text)
        document = answer.json()
        assert document["type"].startswith("urn:spine-async:problem:invalid-")
        assert document["detail"]
    for query in QUERIES:
        answer = await site.client.post(f"{START}?{query}", json={"params": {"name": "x"}})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:spine-async:problem:invalid-request"), query


async def test_a_last_event_id_that_is_wrong(site: Site) -> None:
    run = await site.start(name="Ada")
    for last_id in ("-1", "x", "1.5", "9" * 40):
        answer = await site.client.get(f"/runs/{run['run_id']}/events", headers={"Last-Event-ID": last_id})
        assert answer.status_code == 422
        assert "Last-Event-ID" in answer.json()["detail"]


async def test_markup_stays_inside_of_json(site: Site) -> None:
    """Whoever guesses the type of a response finds no page."""
    await site.runner.enqueue(HOSTILE, run_id=HOSTILE, params={HOSTILE: HOSTILE})
    path = f"/runs/{quote(HOSTILE, safe='')}"
    answer = await site.client.get(f"{path}?wait=30")
    assert answer.json()["run_id"] == HOSTILE
    problem = await site.client.get(f"{path}x")
    signal = await site.client.post(f"{path}/signals/{quote(HOSTILE, safe='')}")
    for each in (answer, problem, signal):
        assert each.headers["content-type"] in {"application/json", "application/problem+json"}
        assert json.loads(each.text)
    streamed = await site.client.get(f"{path}/events")
    assert streamed.headers["content-type"].startswith("text/event-stream")


async def test_a_store_that_is_away_is_a_problem_without_details(
    framework: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/missing/folder/that/is/a/file/runs.db"
    (tmp_path / "missing").touch()
    async with site_of(framework, url, tmp_path) as site:
        answer = await site.client.post(START, json={"params": {"name": "x"}})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:spine-async:problem:store-unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "missing" not in answer.text
    assert "missing" in caplog.text


async def test_a_runner_that_was_not_entered_is_an_error_of_the_server(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """FastAPI without `lifespan`."""
    from fastapi import FastAPI  # noqa: PLC0415
    from httpx import ASGITransport, AsyncClient  # noqa: PLC0415

    from spine_async.integrations.fastapi import allow_all, router  # noqa: PLC0415
    from tests.web.flows import make_runner  # noqa: PLC0415

    runner, _ = make_runner(sqlite_url, tmp_path)
    assert isinstance(runner, WorkflowRunner)
    app = FastAPI()
    app.include_router(router(runner, authorize=allow_all))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://site") as client:
        answer = await client.post(START, json={"params": {"name": "x"}})
    assert answer.status_code == 500
    assert "needs an entered runner" in caplog.text
