"""The routes inside of other applications: prefixes, middleware, logins, several runners, missing packages."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from aiohttp import web
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPBearer
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from spine_async import WorkflowRunner
from spine_async.integrations import aiohttp as for_aiohttp
from spine_async.integrations import fastapi as for_fastapi
from spine_async.web.access import allow_all
from tests.interpreter import ROOT
from tests.plain_http import NO_CERTIFICATES
from tests.service.services import PATIENCE, until
from tests.web.flows import make_runner
from tests.web.sites import messages, serving_asgi

BODY = {"params": {"name": "Ada"}}


async def exercise(address: str, path: str) -> None:
    """Start a run, follow `Location`, and read its events."""
    async with httpx.AsyncClient(verify=NO_CERTIFICATES, timeout=PATIENCE) as client:
        started = await client.post(f"{address}{path}/workflows/greet/runs", json=BODY)
        assert started.status_code == 202, started.text
        location = started.headers["location"]
        assert location == f"{path}/runs/{started.json()['run_id']}"
        assert (await client.get(f"{address}{location}?wait=30")).json()["status"] == "completed"
        async with client.stream("GET", f"{address}{location}/events") as response:
            read = [message async for message in messages(response)]
        assert (read[0].id, read[-1].event) == (1, "end")


@pytest.fixture
def runner(sqlite_url: str, tmp_path: Path) -> WorkflowRunner:
    return make_runner(sqlite_url, tmp_path)[0]


async def test_a_mounted_application_of_fastapi(runner: WorkflowRunner) -> None:
    """The lifespan of an application that is mounted does not run; the outer one enters the runner."""
    inner = FastAPI()
    inner.include_router(for_fastapi.router(runner, authorize=allow_all), prefix="/v1")
    app = FastAPI(lifespan=for_fastapi.lifespan(runner))
    app.mount("/jobs", inner)
    async with serving_asgi(app) as address:
        await exercise(address, "/jobs/v1")


async def test_an_application_behind_a_proxy_that_cuts_a_prefix(runner: WorkflowRunner) -> None:
    app = FastAPI(lifespan=for_fastapi.lifespan(runner))
    app.include_router(for_fastapi.router(runner, authorize=allow_all))
    async with (
        serving_asgi(app, root_path="/public") as address,
        httpx.AsyncClient(verify=NO_CERTIFICATES, base_url=address, timeout=PATIENCE) as client,
    ):
        started = await client.post("/workflows/greet/runs", json=BODY)
        run_id = started.json()["run_id"]
        assert (started.status_code, started.headers["location"]) == (202, f"/public/runs/{run_id}")
        assert (await client.get(f"/runs/{run_id}?wait=30")).json()["status"] == "completed"


async def test_middleware_does_not_hold_a_stream(runner: WorkflowRunner) -> None:
    async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)

    app = FastAPI(lifespan=for_fastapi.lifespan(runner))
    app.add_middleware(GZipMiddleware)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.include_router(for_fastapi.router(runner, authorize=allow_all, heartbeat=0.05))
    async with serving_asgi(app) as address:
        await exercise(address, "")
        async with httpx.AsyncClient(verify=NO_CERTIFICATES, timeout=PATIENCE) as client:
            run_id = (await client.post(f"{address}/workflows/approval/runs")).json()["run_id"]
            async with client.stream("GET", f"{address}/runs/{run_id}/events") as response:
                found = messages(response)
                assert (await anext(found)).id == 1  # arrives although the run goes on
                await found.aclose()
        await until(lambda: not runner._followers._followed)


async def test_a_login_of_the_application_decides_first(runner: WorkflowRunner) -> None:
    async def user(request: Request, token: Annotated[Any, Depends(HTTPBearer(auto_error=False))]) -> None:
        if token is None:
            raise HTTPException(401, "log in")
        request.state.user = token.credentials

    async def authorize(request: Request, action: str, run_id: str | None = None) -> str | None:
        if request.state.user == "blocked":
            raise HTTPException(429, "later")
        return str(request.state.user)

    app = FastAPI(lifespan=for_fastapi.lifespan(runner))
    app.include_router(for_fastapi.router(runner, authorize=authorize), dependencies=[Depends(user)])
    operations = [each for path in app.openapi()["paths"].values() for each in path.values()]
    assert all(each["security"] == [{"HTTPBearer": []}] for each in operations)
    async with serving_asgi(app) as address, httpx.AsyncClient(verify=NO_CERTIFICATES, timeout=PATIENCE) as client:
        for token, status in ((None, 401), ("blocked", 429), ("ada", 200)):
            headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
            assert (await client.get(f"{address}/workflows", headers=headers)).status_code == status


async def test_two_runners_in_one_application(tmp_path: Path) -> None:
    runners = [make_runner(f"sqlite+aiosqlite:///{tmp_path}/{name}.db", tmp_path)[0] for name in "ab"]

    @asynccontextmanager
    async def both(app: FastAPI) -> AsyncIterator[None]:
        async with runners[0], runners[1]:
            yield

    app = FastAPI(lifespan=both)
    for runner, prefix in zip(runners, ("/a", "/b"), strict=True):
        app.include_router(for_fastapi.router(runner, authorize=allow_all), prefix=prefix)
    async with serving_asgi(app) as address:
        await exercise(address, "/a")
        await exercise(address, "/b")
    assert len(app.openapi()["paths"]) == 16


async def test_an_application_of_aiohttp_inside_of_another(runner: WorkflowRunner) -> None:
    inner, app = web.Application(), web.Application()
    for_aiohttp.setup(inner, runner, authorize=allow_all, prefix="/v1")
    app.add_subapp("/jobs", inner)
    apps = web.AppRunner(app)
    await apps.setup()
    try:
        await web.TCPSite(apps, "127.0.0.1", 0).start()
        await exercise(f"http://127.0.0.1:{apps.addresses[0][1]}", "/jobs/v1")
    finally:
        await apps.cleanup()


async def test_an_application_of_aiohttp_ends_its_streams_without_a_signal(runner: WorkflowRunner) -> None:
    """For instance a server that another program starts and ends."""
    app = web.Application()
    for_aiohttp.setup(app, runner, authorize=allow_all)
    apps = web.AppRunner(app, shutdown_timeout=10 * PATIENCE)
    await apps.setup()
    await web.TCPSite(apps, "127.0.0.1", 0).start()
    async with httpx.AsyncClient(
        verify=NO_CERTIFICATES, base_url=f"http://127.0.0.1:{apps.addresses[0][1]}", timeout=PATIENCE
    ) as client:
        run_id = (await client.post("/workflows/approval/runs")).json()["run_id"]
        waiting = asyncio.ensure_future(client.get(f"/runs/{run_id}?wait=60"))
        async with client.stream("GET", f"/runs/{run_id}/events") as response:
            found = messages(response)
            assert (await anext(found)).id == 1
            async with asyncio.timeout(3 * PATIENCE):
                await apps.cleanup()
            assert [message.event async for message in found if message.event == "end"] == []
        assert (await waiting).json()["status"] in {"running", "waiting"}


@pytest.mark.parametrize("package", ["fastapi", "aiohttp"])
def test_a_missing_package_is_named_with_its_extra(package: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; import spine_async.integrations.{package}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"pip install 'spine-async[{package}]'" in done.stderr


def test_the_core_imports_no_framework() -> None:
    program = (
        "import sys; import spine_async.web.routes, spine_async.web.openapi, spine_async.web.asgi; "
        "print(sorted({'fastapi', 'starlette', 'aiohttp'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
