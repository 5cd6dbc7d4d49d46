"""A web application whose runner lives as long as the server: it answers 202 and executes the runs in the background.

Start it with `python -m uvicorn --factory tests.service.web:create_app`. The environment contains `DATABASE_URL`,
`FOLDER` (of the notes) and `HELD` (the capacity).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spine_async import WorkflowRunner, WorkflowRunnerConfig
from tests.service.flows import Flows


def create_app() -> Starlette:
    flows = Flows(os.environ["FOLDER"])
    config = WorkflowRunnerConfig(
        database_url=os.environ["DATABASE_URL"],
        lease_ttl=60,
        drain_timeout=0.2,
        worker_concurrency=int(os.environ["HELD"]),
        trace_enabled=False,
    )
    runner = WorkflowRunner(config=config, workflows=flows.by_name.values())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with runner:
            yield

    async def enqueue(request: Request) -> Response:
        """POST /gated/runs/r1: enqueue the run, and answer before it is executed."""
        path = request.path_params
        handle = await runner.enqueue(flows.by_name[path["workflow"]], run_id=path["run"], params=await request.json())
        return JSONResponse({"run_id": handle.run_id}, 202, headers={"Location": f"/runs/{handle.run_id}"})

    async def show(request: Request) -> Response:
        """GET /runs/r1: what is stored; with `?wait` once the run has ended."""
        handle = runner.handle(request.path_params["run"])
        if "wait" in request.query_params:
            await handle.result()
        record = await handle.record()
        return JSONResponse({"status": record.status.value, "outputs": dict(record.outputs or {})})

    routes = [Route("/{workflow}/runs/{run}", enqueue, methods=["POST"]), Route("/runs/{run}", show)]
    return Starlette(routes=routes, lifespan=lifespan)
