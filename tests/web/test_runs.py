"""The routes over real servers: the same requests and answers with each framework."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from tests.service.services import until
from tests.web.flows import HOSTILE
from tests.web.sites import PREFIX, Site, site_of


async def test_a_run_is_started_and_read(site: Site) -> None:
    body = {"params": {"name": "Ada"}, "partition": {"day": "1"}}
    answer = await site.client.post("/workflows/greet/runs", json=body)
    assert answer.status_code == 202
    run = answer.json()
    assert answer.headers["location"] == f"{PREFIX}/runs/{run['run_id']}"
    assert run["params"] == {"name": "Ada", "times": 1}

    read = await site.client.get(f"/runs/{run['run_id']}?wait=30")
    assert read.status_code == 200
    assert read.headers["content-type"] == "application/json"
    document = read.json()
    assert (document["status"], document["outputs"]) == ("completed", {"hello": {"said": "hello Ada"}})
    assert (document["partition"], document["values_shown"]) == ({"day": "1"}, True)
    assert datetime.fromisoformat(document["completed_at"]) - datetime.now(UTC) < timedelta(minutes=1)


async def test_a_start_waits_for_the_result(site: Site) -> None:
    run = await site.start(name="Ada")
    assert (run["status"], run["outputs"]) == ("completed", {"hello": {"said": "hello Ada"}})
    answer = await site.client.post("/workflows/chat/runs?wait=0.01", json={"params": {"gate": "g"}})
    assert (answer.status_code, answer.json()["outputs"]) == (202, None)
    site.flows.notes.open_gate("g")
    ended = await site.client.get(f"/runs/{answer.json()['run_id']}?wait=30")
    assert ended.json()["status"] == "completed"


async def test_a_failed_run_is_an_answer_and_no_problem(site: Site) -> None:
    run = await site.start("fragile")
    assert (run["status"], run["error_step"], run["error_category"]) == ("failed", "second", "VALIDATION")
    assert "is broken" in run["error"]


async def test_a_run_is_put_into_a_queue(site: Site) -> None:
    body = {"params": {"name": "Ada"}}
    later = await site.client.post("/workflows/greet/runs?queue=mail&key=k&priority=-2&delay=3600", json=body)
    assert later.status_code == 202
    run = later.json()
    assert (run["status"], run["queue"], run["key"], run["priority"]) == ("pending", "mail", "k", -2)
    assert datetime.fromisoformat(run["due_at"]) > datetime.now(UTC) + timedelta(minutes=50)
    now = await site.client.post("/workflows/greet/runs?queue=default&wait=30", json=body)
    assert (now.status_code, now.json()["status"]) == (200, "completed")
    refused = await site.client.post("/workflows/greet/runs?priority=1", json=body)
    assert refused.status_code == 422
    assert "need a queue" in refused.json()["detail"]


async def test_the_same_key_starts_one_run(framework: str, database_url: str, tmp_path: Path) -> None:
    """Also if the requests arrive together."""
    async with site_of(framework, database_url, tmp_path) as site:

        async def post(principal: str, key: str, name: str = "Ada", workflow: str = "greet") -> tuple[int, str]:
            headers = {"Authorization": f"{principal} *", "Idempotency-Key": key}
            body = {"params": {"name": name}}
            answer = await site.client.post(f"/workflows/{workflow}/runs?wait=30", json=body, headers=headers)
            document = answer.json()
            return answer.status_code, document.get("run_id") or document["type"]

        together = await asyncio.gather(*(post("alice", "k1") for _ in range(8)))
        assert len(set(together)) == 1
        assert together[0][0] == 200
        assert len(site.flows.notes.begun(together[0][1])) == 1
        others = [await post("bob", "k1"), await post("alice", "k2"), await post("alice", "k1", workflow="fragile")]
        assert len({together[0][1], *(run_id for _, run_id in others)}) == 4
        assert await post("alice", "k1", "Eve") == (422, "urn:spine-async:problem:idempotency-key-reused")


async def test_runs_are_found_by_their_partition(site: Site) -> None:
    async def post(**partition: object) -> str:
        body = {"params": {"name": "Ada"}, "partition": partition}
        return str((await site.client.post("/workflows/greet/runs?wait=30", json=body)).json()["run_id"])

    async def found(partition: dict[str, object], **headers: str) -> list[str]:
        query = {"partition": json.dumps(partition), "order": "oldest"}
        answer = await site.client.get("/runs", params=query, headers=headers)
        assert answer.status_code == 200
        return [each["run_id"] for each in answer.json()["runs"]]

    first, second = await post(region="EU", day=1), await post(region="EU", day="1")
    assert await found({"region": "EU"}) == [first, second]
    assert await found({"region": "EU", "day": 1}) == [first]
    assert await found({"region": "US"}) == []
    assert await found({"region": "EU"}, Authorization="eve list_runs,read_run") == []  # nor may it be guessed


async def test_a_signal_continues_a_run(site: Site) -> None:
    started = await site.client.post("/workflows/approval/runs")
    path = f"/runs/{started.json()['run_id']}"
    wrong = await site.client.post(f"{path}/signals/approval", json={"value": {"by": 7}})
    assert (wrong.status_code, wrong.json()["type"]) == (422, "urn:spine-async:problem:invalid-signal")
    sent = await site.client.post(f"{path}/signals/approval", json={"value": {"by": "Ada"}})
    assert (sent.status_code, sent.content) == (204, b"")
    ended = await site.client.get(f"{path}?wait=30")
    assert ended.json()["outputs"]["done"] == {"by": "Ada"}
    late = await site.client.post(f"{path}/signals/approval", json={"value": {"by": "Ada"}})
    assert (late.status_code, late.json()["type"]) == (409, "urn:spine-async:problem:run-ended")


async def test_a_run_is_stopped_and_resumed(site: Site) -> None:
    started = await site.client.post("/workflows/approval/runs")
    path = f"/runs/{started.json()['run_id']}"
    stopped = await site.client.post(f"{path}/stop", json={"reason": "not now"})
    assert (stopped.status_code, stopped.json()["was_under_way"]) == (200, True)
    run = (await site.client.get(f"{path}?wait=30")).json()
    assert (run["status"], run["stop_reason"]) == ("stopped", "not now")
    assert (await site.client.post(f"{path}/stop")).json()["was_under_way"] is False

    resumed = await site.client.post(f"{path}/resume")
    assert (resumed.status_code, resumed.headers["location"]) == (202, f"{PREFIX}{path}")
    assert (await site.client.post(f"{path}/signals/approval", json={"value": {"by": "Ada"}})).status_code == 204
    assert (await site.client.get(f"{path}?wait=30")).json()["status"] == "completed"
    again = await site.client.post(f"{path}/resume")
    assert (again.status_code, again.json()["type"]) == (409, "urn:spine-async:problem:run-not-resumable")


async def test_a_failed_run_is_resumed_with_other_params(site: Site) -> None:
    run = await site.start("fragile")
    path = f"/runs/{run['run_id']}"
    assert (await site.client.post(f"{path}/resume", json={"params": {"is_mended": True}})).status_code == 202
    assert (await site.client.get(f"{path}?wait=30")).json()["status"] == "completed"
    assert site.flows.notes.begun(run["run_id"]) == ["first"]


async def test_only_an_ended_run_is_deleted(site: Site) -> None:
    started = await site.client.post("/workflows/approval/runs")
    path = f"/runs/{started.json()['run_id']}"
    refused = await site.client.delete(path)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:spine-async:problem:run-conflict")
    await site.client.post(f"{path}/stop")
    await site.client.get(f"{path}?wait=30")
    assert (await site.client.delete(path)).status_code == 204
    for method in ("GET", "DELETE"):
        gone = await site.client.request(method, path)
        assert (gone.status_code, gone.json()["type"]) == (404, "urn:spine-async:problem:run-not-found")


async def test_workflows_are_listed(site: Site) -> None:
    listed = (await site.client.get("/workflows")).json()["workflows"]
    assert [each["name"] for each in listed] == sorted(
        [HOSTILE, "approval", "chat", "child", "fragile", "greet", "parent"]
    )
    greet = next(each for each in listed if each["name"] == "greet")
    assert greet["steps"] == [{"name": "hello", "step_type": "lambda"}]
    assert greet["params_schema"]["required"] == ["name"]
    assert (greet["description"], greet["tags"]) == ("Greets.", ["a"])


async def test_runs_are_listed_page_by_page(site: Site) -> None:
    for number in range(5):
        await site.start(name=f"n{number}")
    await site.start("fragile")
    first = (await site.client.get("/runs?workflow_name=greet&limit=3&with_params=true")).json()
    assert [run["params"]["name"] for run in first["runs"]] == ["n4", "n3", "n2"]
    path = f"/runs?workflow_name=greet&limit=3&cursor={quote(first['next_cursor'])}"
    second = (await site.client.get(path)).json()
    assert [run["params"] for run in second["runs"]] == [None, None]
    assert second["next_cursor"] is None
    failed = (await site.client.get("/runs?status=failed&error_category=VALIDATION")).json()["runs"]
    assert [run["workflow_name"] for run in failed] == ["fragile"]
    later = quote((datetime.now(UTC) + timedelta(days=1)).isoformat())
    assert (await site.client.get(f"/runs?created_after={later}")).json()["runs"] == []
    oldest = (await site.client.get(f"/runs?created_before={later}&order=oldest&limit=1")).json()["runs"]
    assert oldest[0]["run_id"] == second["runs"][1]["run_id"]


async def test_a_child_has_a_slash_in_its_id(site: Site) -> None:
    run_ids = ("order-7/stop", "100%2F/x", "order-7")
    for run_id in run_ids:
        await site.runner.enqueue("child", run_id=run_id)
    for run_id in run_ids:
        answer = await site.client.get(f"/runs/{quote(run_id, safe='')}?wait=30")
        assert (answer.status_code, answer.json()["run_id"]) == (200, run_id)
    listed = await site.client.get(
        f"/runs/{quote('order-7/stop', safe='')}/events", headers={"Accept": "application/json"}
    )
    assert listed.json()["events"][0]["run_id"] == "order-7/stop"
    started = await site.client.post(f"/workflows/{quote(HOSTILE, safe='')}/runs?wait=30")
    assert (started.status_code, started.json()["workflow_name"]) == (200, HOSTILE)
    assert started.headers["location"] == f"{PREFIX}/runs/{started.json()['run_id']}"


async def test_a_run_of_a_queue_with_a_parent(site: Site) -> None:
    """A step starts a run of its own, which the listing finds."""
    started = await site.client.post("/workflows/parent/runs")
    run_id = started.json()["run_id"]

    async def has_child() -> bool:
        return bool((await site.client.get(f"/runs?parent_run_id={run_id}")).json()["runs"])

    await until(has_child)


async def test_what_is_not_known_is_not_found(site: Site) -> None:
    for method, path in (("GET", "/runs/none"), ("GET", "/runs/none/events"), ("POST", "/workflows/none/runs")):
        answer = await site.client.request(method, path)
        assert (answer.status_code, answer.json()["status"]) == (404, 404)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_method_that_a_path_does_not_have(site: Site) -> None:
    for path, allowed in (("/runs/r1", {"GET", "DELETE"}), ("/runs/r1/stop", {"POST"}), ("/workflows", {"GET"})):
        answer = await site.client.put(path)
        assert (answer.status_code, set(answer.headers["allow"].replace(" ", "").split(","))) == (405, allowed)
