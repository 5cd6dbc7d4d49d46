"""Who may see and do what, and what keeps other sites out."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException

from spine_async import DefinitionError, RunStatus, WorkflowRunner
from spine_async.dashboard import dashboard
from tests.dashboard.board import ORIGIN, PREFIX, SAME_ORIGIN, Board, Elements
from tests.dashboard.flows import FAILING, MAPPED, SECRET, STREAMING, WAITING
from tests.plain_http import NO_CERTIFICATES

pytestmark = pytest.mark.anyio

PAGES = ["/", "/runs", "/run?id=r", "/run/context?id=r", "/run/events?id=r", "/run/map?id=r&path=each"]
PAGES += ["/queues", "/schedules", "/signals", "/workers", "/run/live?id=r", "/live"]


def nobody(request: Any) -> None:
    return None


FORMS = ["/run/stop", "/run/resume", "/run/fork", "/run/signal"]
FORMS += ["/schedules/pause", "/schedules/resume", "/schedules/trigger"]


@pytest.mark.parametrize("path", PAGES + FORMS)
async def test_nobody_sees_anything_without_access(board: Board, path: str) -> None:
    await board.started(FAILING, RunStatus.FAILED)
    method = "POST" if path in FORMS else "GET"
    answer = await board.client.request(method, path, headers={"Level": "none", **SAME_ORIGIN})
    assert answer.status_code == 403
    assert "no access" in answer.text
    assert "breaks" not in answer.text


@pytest.mark.parametrize("path", FORMS)
async def test_readers_change_nothing(board: Board, path: str) -> None:
    await board.started(WAITING, RunStatus.WAITING)
    answer = await board.post(path, {"id": "r", "name": "approval", "path": "first"}, level="read")
    assert answer.status_code == 403
    assert "not change anything" in answer.text
    assert await board.runner.handle("r").status() is RunStatus.WAITING


async def test_readers_have_no_forms(board: Board) -> None:
    await board.started(WAITING, RunStatus.WAITING)
    for path in ("/run?id=r", "/signals", "/schedules"):
        assert "post" not in [
            each.get("method") for each in Elements(await board.page(path, level="read")).named("form")
        ]
    assert "read only" in await board.page("/", level="read")


async def test_values_are_hidden_from_readers_unless_they_may_see_them(runner: WorkflowRunner) -> None:
    async with httpx.AsyncClient(verify=NO_CERTIFICATES) as client, httpx.AsyncClient(verify=NO_CERTIFICATES) as other:
        board, open_board = Board(runner, client), Board(runner, other, readers_see_values=True)
        await board.started(FAILING, RunStatus.FAILED, "f", say=SECRET)
        await board.started(STREAMING, RunStatus.WAITING, "s", say=SECRET)
        await board.started(MAPPED, RunStatus.COMPLETED, "m", say=SECRET)
        paths = ["/", "/runs", "/run?id=f", "/run/context?id=f", "/run/events?id=f", "/run?id=s", "/run/events?id=s"]
        for path in paths:
            assert SECRET not in await board.page(path, level="read"), path
        seen = {path for path in paths if SECRET in await open_board.page(path, level="read")}
        assert seen == set(paths)
        hidden = await board.page("/run/map?id=m&path=each", level="read")
        assert "onerror" not in hidden
        assert "DATA_QUALITY" in hidden


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://board.test:81"},
        {"Origin": "http://[evil"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "none"},
    ],
)
async def test_forms_of_other_sites_do_nothing(board: Board, headers: dict[str, str]) -> None:
    await board.started(WAITING, RunStatus.WAITING)
    answer = await board.post("/run/stop", {"id": "r"}, headers=headers)
    assert answer.status_code == 403
    assert await board.runner.handle("r").status() is RunStatus.WAITING


@pytest.mark.parametrize("headers", [SAME_ORIGIN, {"Origin": ORIGIN}, {"Origin": ORIGIN.upper()}])
async def test_forms_of_the_dashboard_are_accepted(board: Board, headers: dict[str, str]) -> None:
    await board.started(WAITING, RunStatus.WAITING)
    answer = await board.post("/run/stop", {"id": "r"}, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PREFIX}/run?id=r&notice=stopping")


async def test_a_form_must_be_a_form_of_limited_size(board: Board) -> None:
    headers = {**SAME_ORIGIN, "Content-Type": "application/json"}
    assert (await board.client.post("/run/stop", content="{}", headers=headers)).status_code == 415
    assert (await board.post("/run/stop", {"id": "r", "reason": "x" * 1_100_000})).status_code == 413
    headers = {**SAME_ORIGIN, "Content-Type": "application/x-www-form-urlencoded"}
    assert (await board.client.post("/run/stop", content=b"id=%ff", headers=headers)).status_code == 400
    assert (await board.client.post("/run/stop", content=b"&".join([b"a=1"] * 200), headers=headers)).status_code == 400


@pytest.mark.parametrize("path", ["/", "/run?id=unknown", "/static/spine.css", "/nothing"])
async def test_every_answer_has_strict_headers(board: Board, path: str) -> None:
    answer = await board.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    expected = "immutable" if "static" in path else "no-store"
    assert expected in answer.headers["cache-control"]


async def test_assets_are_cached_by_their_version(board: Board) -> None:
    answer = await board.get("/static/htmx.min.js")
    again = await board.client.get("/static/htmx.min.js", headers={"If-None-Match": answer.headers["etag"]})
    assert (answer.status_code, again.status_code) == (200, 304)
    assert answer.headers["content-type"].startswith("text/javascript")


async def test_access_may_be_async_and_may_redirect(runner: WorkflowRunner) -> None:
    async def access(request: Any) -> Any:
        if "Authorization" not in request.headers:
            raise HTTPException(303, headers={"Location": "/login"})
        return "read"

    transport = httpx.ASGITransport(dashboard(runner, access=access))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert (await client.get("/", headers={"Authorization": "x"})).status_code == 200


async def test_a_wrong_answer_of_access_refuses(runner: WorkflowRunner, caplog: pytest.LogCaptureFixture) -> None:
    async with httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
        board = Board(runner, client, access=lambda request: True)
        with caplog.at_level(logging.ERROR, "spine_async"):
            answer = await board.get("/")
        assert answer.status_code in {400, 500}
        assert "Overview" not in answer.text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"access": "all"}, "access is 'all'"),
        ({"access": nobody, "readers_see_values": "yes"}, "readers_see_values"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        dashboard(WorkflowRunner(checkpoint_enabled=False), **options)


def test_the_runner_must_be_a_runner() -> None:
    with pytest.raises(DefinitionError, match="must be a WorkflowRunner"):
        dashboard("runner", access=lambda request: "all")  # type: ignore[arg-type]


def test_without_the_extra_the_error_names_it() -> None:
    program = (
        "import sys; sys.modules['jinja2'] = None\n"
        "try:\n    import spine_async.dashboard\nexcept ImportError as exc:\n    print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert "pip install 'spine-async[dashboard]'" in done.stdout
