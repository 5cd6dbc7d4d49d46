"""Real servers for the web tests: in this process, and as processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from aiohttp import web
from fastapi import FastAPI

from spine_async import WorkflowRunner
from spine_async.integrations import aiohttp as for_aiohttp
from spine_async.integrations import fastapi as for_fastapi
from spine_async.web.access import Authorize
from tests.interpreter import ROOT, environment
from tests.plain_http import NO_CERTIFICATES
from tests.service.services import PATIENCE
from tests.web.flows import WebFlows, authorize, make_runner

PREFIX = "/api"
ALL = {"Authorization": "alice *"}
FRAMEWORKS = ("fastapi", "aiohttp")


@dataclass
class Site:
    """A server with the routes, and a client of it that may do everything."""

    client: httpx.AsyncClient
    runner: WorkflowRunner
    flows: WebFlows

    async def start(self, workflow: str = "greet", **params: object) -> dict[str, Any]:
        """Start a run and wait for its end; returns its document."""
        answer = await self.client.post(f"/workflows/{workflow}/runs?wait=30", json={"params": params})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def fastapi_app(runner: WorkflowRunner, authorize: Authorize = authorize, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=for_fastapi.lifespan(runner))
    app.include_router(for_fastapi.router(runner, authorize=authorize, **options), prefix=PREFIX)
    return app


def aiohttp_app(runner: WorkflowRunner, authorize: Authorize = authorize, **options: Any) -> web.Application:
    app = web.Application()
    for_aiohttp.setup(app, runner, authorize=authorize, prefix=PREFIX, **options)
    return app


@asynccontextmanager
async def serving(framework: str, runner: WorkflowRunner, **options: Any) -> AsyncIterator[str]:
    """The address of a server in this process."""
    if framework == "fastapi":
        async with serving_asgi(fastapi_app(runner, **options)) as address:
            yield address + PREFIX
        return
    apps = web.AppRunner(aiohttp_app(runner, **options))
    await apps.setup()
    try:
        site = web.TCPSite(apps, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{apps.addresses[0][1]}{PREFIX}"
    finally:
        await apps.cleanup()


@asynccontextmanager
async def serving_asgi(app: Any, **options: Any) -> AsyncIterator[str]:
    """The address of a uvicorn server in this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="on", loop="none", log_level="warning", **options))
    task = asyncio.ensure_future(server.serve())
    try:
        while not server.started:  # uvicorn has no event for it
            assert not task.done(), task
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def site_of(framework: str, url: str, folder: Path, **options: Any) -> AsyncIterator[Site]:
    """A site in this process."""
    runner, flows = make_runner(url, folder, **options.pop("config", {}))
    async with (
        serving(framework, runner, **options) as address,
        httpx.AsyncClient(verify=NO_CERTIFICATES, base_url=address, headers=ALL, timeout=PATIENCE) as client,
    ):
        yield Site(client, runner, flows)


class ServerProcess:
    """A server in a process of its own, on a Unix socket."""

    def __init__(self, framework: str, socket: Path, url: str, folder: Path, *, workers: int = 1) -> None:
        self.socket = socket
        command = [sys.executable, "-m", "tests.web.program", str(socket)]
        if framework == "fastapi":
            options = [f"--workers={workers}", f"--uds={socket}", "--log-level=warning"]
            command = [sys.executable, "-m", "uvicorn", "--factory", "tests.web.program:create_fastapi", *options]
        variables = environment(DATABASE_URL=url, FOLDER=str(folder))
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True
        )

    def client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(verify=NO_CERTIFICATES, uds=str(self.socket))
        return httpx.AsyncClient(base_url=f"http://site{PREFIX}", transport=transport, headers=ALL, timeout=PATIENCE)

    async def answers(self) -> bool:
        """Whether it answers requests."""
        assert self.process.poll() is None, self.process.communicate()[1]
        try:
            async with self.client() as client:
                return (await client.get("/workflows")).status_code == 200
        except httpx.TransportError:
            return False

    async def end(self, number: signal.Signals) -> int:
        """Send a signal, and wait for the exit code."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass
class Message:
    """A server-sent event."""

    event: str = "message"
    id: int | None = None
    data: Any = None


async def messages(response: httpx.Response) -> AsyncGenerator[Message, None]:
    """The messages of a stream, read by the rules of the HTML standard."""
    message = Message()
    data: list[str] = []
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if not line and data:
            message.data = json.loads("\n".join(data))
            yield message
            message, data = Message(), []
        elif name == "data":
            data.append(value)
        elif name == "id":
            message.id = int(value)
        elif name == "event":
            message.event = value
