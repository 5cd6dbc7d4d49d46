"""Who may do what, and who sees values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from aiohttp import web

from spine_async import DefinitionError, WorkflowRunner
from spine_async.integrations import aiohttp as for_aiohttp
from spine_async.integrations import fastapi as for_fastapi
from spine_async.web.access import Action, allow_all
from spine_async.web.routes import ROUTES
from tests.plain_http import NO_CERTIFICATES
from tests.web.flows import SECRET
from tests.web.sites import FRAMEWORKS, Site, site_of

REQUESTS: list[tuple[str, str, str, int]] = [
    ("GET", "/workflows", "list_workflows", 200),
    ("POST", "/workflows/approval/runs", "start_run", 202),
    ("GET", "/runs", "list_runs", 200),
    ("GET", "/runs/{run}", "read_run", 200),
    ("GET", "/runs/{run}/events", "read_run", 200),
    ("POST", "/runs/{run}/signals/none", "send_signal", 204),
    ("POST", "/runs/{run}/stop", "stop_run", 200),
    ("POST", "/runs/{run}/resume", "resume_run", 202),
    ("DELETE", "/runs/{run}", "delete_run", 409),
]


def test_every_route_and_every_action_is_tried() -> None:
    tried = {(method, path.replace("{run}", "{run_id}")) for method, path, _, _ in REQUESTS}
    found = {(each.method, each.path.replace("{name}", "approval")) for each in ROUTES}
    assert tried == {(method, path.replace("signals/approval", "signals/none")) for method, path in found}
    assert {action for _, _, action, _ in REQUESTS} | {"read_values"} == set(get_args(Action))


async def test_each_request_needs_its_action(site: Site) -> None:
    run = (await site.client.post("/workflows/approval/runs")).json()["run_id"]
    as_json = {"Accept": "application/json"}
    for method, path, action, status in REQUESTS:
        url = path.format(run=run)
        others = ",".join(each for each in get_args(Action) if each != action)
        refused = await site.client.request(method, url, headers={"Authorization": f"eve {others}"})
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:spine-async:problem:forbidden"), path
        allowed = await site.client.request(method, url, headers={"Authorization": f"eve {action}", **as_json})
        assert allowed.status_code == status, (path, allowed.text)
        if action == "stop_run":
            await site.client.get(f"/runs/{run}?wait=30")


async def test_a_request_without_credentials_is_told_so(site: Site) -> None:
    """A cookie is a credential too."""
    for headers, status in (({}, 401), ({"Cookie": "session=1"}, 403)):
        async with httpx.AsyncClient(verify=NO_CERTIFICATES, base_url=site.client.base_url, headers=headers) as client:
            answer = await client.get("/runs/none")
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_rights_may_differ_from_run_to_run(site: Site) -> None:
    mine, other = [(await site.start(name=each))["run_id"] for each in ("Ada", "Eve")]
    headers = {"X-Runs": mine}
    assert (await site.client.get(f"/runs/{mine}", headers=headers)).status_code == 200
    assert (await site.client.get(f"/runs/{other}", headers=headers)).status_code == 403
    listed = (await site.client.get("/runs", headers=headers)).json()["runs"]
    assert [run["run_id"] for run in listed] == [mine]


async def test_values_are_only_for_those_who_may_see_them(site: Site) -> None:
    site.flows.notes.open_gate("g")
    chat = await site.start("chat", gate="g", secret=SECRET)
    failed = await site.start("fragile", secret=SECRET)
    reader = {"Authorization": "eve start_run,list_runs,read_run"}
    as_json = {"Accept": "application/json"}
    texts = []
    for run in (chat, failed):
        path = f"/runs/{run['run_id']}"
        for extra in ({}, as_json):
            answer = await site.client.get(f"{path}/events", headers={**reader, **extra})
            assert answer.status_code == 200
            texts.append(answer.text)
            assert SECRET in (await site.client.get(f"{path}/events", headers=extra)).text
        document = (await site.client.get(path, headers=reader)).json()
        assert document["values_shown"] is False
        assert {document[name] for name in ("params", "outputs", "partition", "error")} == {None}
        texts.append(json.dumps(document))
        assert SECRET in (await site.client.get(path)).text
    texts.append((await site.client.get("/runs?with_params=true", headers=reader)).text)
    body = {"params": {"name": SECRET}}
    texts.append((await site.client.post("/workflows/greet/runs?wait=30", json=body, headers=reader)).text)
    assert [text for text in texts if SECRET in text] == []
    metadata = [each["metadata"] for each in json.loads(texts[1])["events"] if each["event_type"] == "token"]
    assert metadata[0] == {"execution": 1, "attempt": 1}


async def test_an_unusable_principal_is_an_error_of_the_server(
    framework: str, sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[object] = ["", 7, object()]

    async def authorize(request: Any, action: str, run_id: str | None = None) -> Any:
        return answers.pop()

    async with site_of(framework, sqlite_url, tmp_path, authorize=authorize) as site:
        while answers:
            refused = await site.client.get("/workflows")
            assert (refused.status_code, refused.json()["type"]) == (500, "urn:spine-async:problem:internal-error")
    assert caplog.text.count("it must return a text that identifies the caller") >= 3


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_authorize_is_required_and_async(framework: str) -> None:
    def plain(request: Any, action: str, run_id: str | None = None) -> str:
        return "alice"

    runner = WorkflowRunner()
    for authorize in (plain, None, "allow"):
        with pytest.raises(DefinitionError, match=r"it must be an async function\(request, action, run_id=None\)"):
            _add(framework, runner, authorize)
    with pytest.raises(DefinitionError, match="it must be a WorkflowRunner"):
        _add(framework, "runner", allow_all)
    _add(framework, runner, allow_all)


def _add(framework: str, runner: Any, authorize: Any) -> None:
    if framework == "fastapi":
        for_fastapi.router(runner, authorize=authorize)
    else:
        for_aiohttp.setup(web.Application(), runner, authorize=authorize)
