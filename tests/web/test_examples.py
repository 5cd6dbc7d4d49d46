"""The example services, started by the commands of their pages, and used as their pages in a browser use them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.interpreter import ROOT, environment
from tests.plain_http import NO_CERTIFICATES
from tests.service.services import PATIENCE, until
from tests.web.sites import messages

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "docs" / "examples"
STARTS_WITHIN = 90.0  # seconds, on a busy machine


def command_of(folder: Path, port: int) -> list[str]:
    """The last command of the first block of the README, on another port."""
    block = (folder / "README.md").read_text().split("```console\n")[1].split("```")[0]
    words = shlex.split(block.strip().splitlines()[-1].removeprefix("$ "))
    program = [sys.executable, *(["-m", "uvicorn"] if words[0] == "uvicorn" else [])]
    return program + [str(port) if word == "8000" else word for word in words[1:]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], str]]]:
    """Starts an example in a copy of its folder; returns its process and its address."""
    started: list[subprocess.Popen[str]] = []

    def run(name: str) -> tuple[subprocess.Popen[str], str]:
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(EXAMPLES / name, folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        program = folder / "service.py"  # one of them has its port in the program
        program.write_text((EXAMPLES / name / "service.py").read_text().replace("port=8080", f"port={port}"))
        variables = {**os.environ, **environment(), "SPINE_DATABASE_URL": f"sqlite:///{folder}/runs.db"}
        started.append(
            subprocess.Popen(command_of(folder, port), cwd=folder, env=variables, stderr=subprocess.PIPE, text=True)
        )
        return started[-1], f"http://127.0.0.1:{port}"

    yield run
    for each in started:
        each.kill()
        each.communicate()


async def opened_page(process: subprocess.Popen[str], client: httpx.AsyncClient) -> str:
    """The page, once the server answers; its cookie is in the client then."""

    async def page() -> str | None:
        assert process.poll() is None, process.communicate()[1]
        try:
            return (await client.get("/")).text
        except httpx.TransportError:
            return None

    return str(await until(page, within=STARTS_WITHIN))


async def end_of(client: httpx.AsyncClient, path: str, on_event: Callable[[dict[str, Any]], Any]) -> str:
    """Follow a run as the page does; returns its status at the end."""
    async with client.stream("GET", f"{path}/events") as response, aclosing(messages(response)) as found:
        assert response.status_code == 200
        async for message in found:
            if message.event == "end":
                return str(message.data["status"])
            await on_event(message.data)
    raise AssertionError("the stream has ended before the run")


CASES = {
    "fastapi_service": ("reports", {"topic": "Tides", "sections": 3}, "approval", {"approved": True, "by": "Ada"}),
    "aiohttp_service": ("imports", {"files": [f"{number}.csv" for number in range(8)]}, "confirm", {"by": "Ada"}),
}


@pytest.mark.parametrize("name", CASES)
async def test_an_example_is_started_and_used_as_its_page_says(
    start: Callable[[str], tuple[subprocess.Popen[str], str]], name: str
) -> None:
    workflow, params, signal_name, value = CASES[name]
    process, address = start(name)
    async with httpx.AsyncClient(verify=NO_CERTIFICATES, base_url=address, timeout=PATIENCE) as client:
        page = await opened_page(process, client)
        async with httpx.AsyncClient(verify=NO_CERTIFICATES, base_url=address) as stranger:
            assert (await stranger.get("/api/runs")).status_code == 401
        paths = re.findall(r'post\("(/workflows/\w+/runs)"', page)
        assert paths == [f"/workflows/{workflow}/runs"]
        started = await client.post(f"/api{paths[0]}", json={"params": params})
        path = f"/api/runs/{started.json()['run_id']}"
        seen: list[str] = []

        async def on_event(event: dict[str, Any]) -> None:
            seen.append(event["event_type"])
            if event["event_type"] == "step_started" and event["step_name"] == signal_name:
                sent = await client.post(f"{path}/signals/{signal_name}", json={"value": value})
                assert sent.status_code == 204

        assert await end_of(client, path, on_event) == "completed"
        for event_type in re.findall(r"^    (\w+): \(event\)", page, re.MULTILINE):
            assert event_type in seen, "the page shows this event"
        ended = (await client.get(path)).json()["outputs"]
        assert list(ended.values())[-1]["by"] == "Ada"

        stopped = await client.post(f"/api{paths[0]}", json={"params": params})
        path = f"/api/runs/{stopped.json()['run_id']}"

        async def stop(event: dict[str, Any]) -> None:
            await client.post(f"{path}/stop", json={"reason": "stopped in the page"})

        assert await end_of(client, path, stop) == "stopped"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) in {0, -signal.SIGTERM}
