"""Each route on each store: what a store cannot do is a problem that names the store, not an error of the server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from spine_async import RunFilters, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore
from spine_async.web.parameters import RunsQuery
from spine_async.web.routes import ROUTES
from tests.plain_http import NO_CERTIFICATES
from tests.service.services import PATIENCE
from tests.stores import STORES, store_of
from tests.web.flows import WebFlows
from tests.web.sites import ALL, serving

QUERY = {
    "workflow_name": "greet",
    "status": "failed",
    "queue": "mail",
    "key": "k",
    "partition": '{"day":"1"}',
    "parent_run_id": "nobody",
    "stop_reason": "why",
    "error_category": "VALIDATION",
    "created_after": "2026-01-01T00:00:00Z",
    "created_before": "2026-01-01T00:00:00Z",
    "ended_after": "2026-01-01T00:00:00Z",
    "ended_before": "2026-01-01T00:00:00Z",
    "run_id_prefix": "a",
    "order": "oldest",
    "with_params": "true",
    "limit": "1",
}
GREETING = {"params": {"name": "Ada"}}


@dataclass(frozen=True)
class Call:
    """A request, and what its store must have: without it the answer is a problem that says so."""

    method: str
    path: str
    body: object = None
    needs: str | None = None


CALLS = (
    Call("GET", "/workflows"),
    Call("POST", "/workflows/greet/runs", GREETING),
    Call("POST", "/workflows/greet/runs?wait=30", {**GREETING, "partition": {"day": "1"}}),
    Call("POST", "/workflows/greet/runs?queue=default", GREETING, "keeps no queues; leave out the queue"),
    Call("POST", "/workflows/greet/runs?queue=mail&key=k&priority=1&delay=9", GREETING, "keeps no queues"),
    Call("POST", "/workflows/approval/runs"),
    Call("POST", "/workflows/parent/runs"),
    *(Call("GET", str(httpx.URL("/runs", params={name: value}))) for name, value in QUERY.items()),
    Call("GET", "/runs/failed"),
    Call("GET", "/runs/failed/events"),
    Call("POST", "/runs/failed/signals/approval", {"value": {"by": "Ada"}}, "stores no signals; use a database"),
    Call("POST", "/runs/failed/stop", {"reason": "why", "compensate": True}),
    Call("POST", "/runs/failed/resume", {"params": {"is_mended": True}}),
    Call("GET", "/runs/failed?wait=30"),
    Call("DELETE", "/runs/failed"),
)


def test_every_route_and_every_filter_is_called() -> None:
    for route in ROUTES:
        pattern = re.sub(r"\{\w+\}", "[^/]+", route.path)
        assert any(
            call.method == route.method and re.fullmatch(pattern, call.path.partition("?")[0]) for call in CALLS
        ), route
    assert {*QUERY, "cursor"} == set(RunsQuery.model_fields)


def test_a_listing_has_the_filters_of_the_runner() -> None:
    """Without the owner: its name tells of the hosts of the service."""
    assert set(RunFilters.__annotations__) - {"owner"} <= set(RunsQuery.model_fields)


@pytest.mark.parametrize("kind", STORES)
async def test_each_route_answers_on_each_store(
    kind: str, framework: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    flows = WebFlows(tmp_path)
    config = WorkflowRunnerConfig(trace_enabled=False, drain_timeout=0.2, cancel_grace=0.3)
    runner = WorkflowRunner(store=store_of(kind, tmp_path, request), config=config, workflows=flows.all)
    fragile = runner.workflows["fragile"]
    async with (
        serving(framework, runner) as address,
        httpx.AsyncClient(verify=NO_CERTIFICATES, base_url=address, headers=ALL, timeout=PATIENCE) as client,
    ):
        await runner.execute(fragile, run_id="failed")
        for call in CALLS:
            answer = await client.request(call.method, call.path, json=call.body)
            if call.needs is None or kind == "memory":
                assert answer.status_code in {200, 202, 204}, (call, answer.text)
                continue
            problem = answer.json()
            assert (answer.status_code, problem["type"]) == (501, "urn:spine-async:problem:unsupported-by-store"), call
            assert f"{runner.store_name} {call.needs}" in problem["detail"]
        assert runner.store_name == {"memory": "MemoryRunStore", "file": "FileRunStore", "redis": "RedisRunStore"}[kind]


@pytest.mark.parametrize("config", [{"checkpoint_enabled": False}, {"dry_run": True}])
async def test_a_runner_that_stores_nothing_starts_nothing(
    config: dict[str, bool], framework: str, tmp_path: Path
) -> None:
    flows = WebFlows(tmp_path)
    runner = WorkflowRunner(store=MemoryRunStore(), config=WorkflowRunnerConfig(**config), workflows=flows.all)
    async with (
        serving(framework, runner) as address,
        httpx.AsyncClient(verify=NO_CERTIFICATES, base_url=address, headers=ALL, timeout=PATIENCE) as client,
    ):
        for path in ("/workflows/greet/runs", "/workflows/greet/runs?queue=default", "/runs/r/signals/approval"):
            answer = await client.post(path, json={})
            assert answer.status_code == 501
            assert "enable its checkpoints" in answer.json()["detail"]
        assert flows.notes.begun("r") == []
        assert (await client.get("/runs")).json()["runs"] == []
