"""Services under uvicorn: requests are answered with 202, and a deploy in the middle loses no run."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.crash.conftest import Rows
from tests.interpreter import ROOT, environment
from tests.service.flows import Notes
from tests.service.services import PATIENCE, until

pytestmark = pytest.mark.slow

OLD, NEW = 2, 1  # worker processes of the services
HELD_BY_EACH = 2  # runs
RUNS = [f"r{number}" for number in range((OLD + NEW) * HELD_BY_EACH)]
STARTS_WITHIN = 60.0  # seconds, on a busy machine


class Server:
    """A uvicorn process that listens on a Unix socket, with worker processes."""

    def __init__(self, socket: Path, workers: int, url: str, notes: Path) -> None:
        self.socket = socket
        options = [f"--workers={workers}", f"--uds={socket}", "--timeout-graceful-shutdown=1", "--log-level=warning"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", "tests.service.web:create_app", *options],
            cwd=ROOT,
            env={**os.environ, **environment(DATABASE_URL=url, FOLDER=str(notes), HELD=str(HELD_BY_EACH))},
            stderr=subprocess.PIPE,
            text=True,
        )

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, str], Any]:
        """Send a request; returns the status, the headers and the JSON of the answer."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        text = json.dumps(body)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: s\r\nContent-Length: {len(text)}\r\n".encode())
        writer.write(f"Connection: close\r\n\r\n{text}".encode())
        try:
            answer = await asyncio.wait_for(reader.read(), PATIENCE)
        finally:
            writer.close()
        head, _, rest = answer.decode().partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(status.split()[1]), headers, json.loads(rest) if rest.startswith(("{", "[")) else None

    async def answers(self) -> bool:
        """Whether it answers requests."""
        try:
            return (await self.ask("GET", "/none"))[0] == 404
        except OSError:
            assert self.process.poll() is None, self.process.communicate()[1]
            return False

    def end(self) -> None:
        """SIGTERM to a server that is to end by itself, as a deploy does it; SIGKILL if it does not."""
        self.process.terminate()
        try:
            self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def serve(database_url: str, tmp_path: Path) -> Iterator[Callable[[int], Server]]:
    servers: list[Server] = []
    numbers = itertools.count()
    with tempfile.TemporaryDirectory(prefix="spine-") as sockets:

        def start(workers: int) -> Server:
            servers.append(Server(Path(sockets, f"s{next(numbers)}"), workers, database_url, tmp_path))
            return servers[-1]

        yield start
        for server in servers:
            server.end()


async def test_a_deploy_in_the_middle_of_runs_loses_nothing(
    serve: Callable[[int], Server], notes: Notes, query: Callable[..., Rows]
) -> None:
    """Each process holds two runs in a step that does not end; those of the old service move to the new one."""
    old, new = serve(OLD), serve(NEW)
    await until(old.answers, within=STARTS_WITHIN)
    await until(new.answers, within=STARTS_WITHIN)
    posts = [server.ask("POST", "/gated/runs/r0", {"n": 0}) for server in (old, new) for _ in range(5)]
    posts += [old.ask("POST", f"/gated/runs/{run}", {"n": 0}) for run in RUNS[1:]]
    answers = await asyncio.gather(*posts)
    assert [status for status, _, _ in answers] == [202] * len(posts)
    assert [(headers["location"], body) for _, headers, body in answers[:10]] == [("/runs/r0", {"run_id": "r0"})] * 10
    await until(lambda: all(notes.begun(run) == ["first", "gated"] for run in RUNS))

    waiting = asyncio.gather(*(_asked(old, f"/runs/{run}?wait") for run in RUNS))  # uvicorn cancels these requests
    old.process.terminate()
    assert await asyncio.to_thread(old.process.wait, PATIENCE) in {0, -signal.SIGTERM}
    await waiting
    rows = query("SELECT run_id, status, owner IS NULL FROM core_workflow_runs")
    moved = [run for run, status, is_free in rows if (status, bool(is_free)) == ("pending", True)]
    held = [run for run, status, is_free in rows if (status, bool(is_free)) == ("running", False)]
    assert (len(moved), len(held)) == (OLD * HELD_BY_EACH, NEW * HELD_BY_EACH)

    for run in RUNS:
        notes.open_gate(run)
    ended = await asyncio.gather(*(new.ask("GET", f"/runs/{run}?wait") for run in RUNS))
    assert [(status, body["status"]) for status, _, body in ended] == [(200, "completed")] * len(RUNS)
    assert {run: notes.begun(run) for run in moved} == {run: ["first", "gated", "gated", "last"] for run in moved}
    assert {run: notes.begun(run) for run in held} == {run: ["first", "gated", "last"] for run in held}


async def _asked(server: Server, path: str) -> None:
    with suppress(OSError, IndexError):  # it is cut off
        await server.ask("GET", path)
