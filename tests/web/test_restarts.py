"""Servers that end in the middle: streams end at once, and continue without a loss on the next server."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.service.services import until
from tests.web.flows import SECRET, WebFlows
from tests.web.sites import Message, ServerProcess, messages

pytestmark = pytest.mark.slow

STARTS_WITHIN = 90.0  # seconds, on a busy machine
Serve = Callable[..., ServerProcess]


@pytest.fixture
def url(request: pytest.FixtureRequest, database: str) -> str:
    return str(request.getfixturevalue("sqlite_url" if database == "sqlite" else "cleared_postgres_url"))


@pytest.fixture
def serve(url: str, tmp_path: Path) -> Iterator[Serve]:
    servers: list[ServerProcess] = []
    with tempfile.TemporaryDirectory(prefix="spine-") as sockets:

        def start(framework: str, workers: int = 1) -> ServerProcess:
            socket = Path(sockets, f"s{len(servers)}")
            servers.append(ServerProcess(framework, socket, url, tmp_path, workers=workers))
            return servers[-1]

        yield start
        for server in servers:
            server.close()


class Reader:
    """A client that connects again with `Last-Event-ID`, as a browser does."""

    def __init__(self, path: str) -> None:
        self.read: list[Message] = []
        self.has_ended = False
        self._path = path

    @property
    def tokens(self) -> set[str]:
        return {each.data["metadata"]["data"]["text"] for each in self.read if each.data["event_type"] == "token"}

    async def connect(self, server: ServerProcess) -> None:
        """Read until the stream ends or breaks."""
        headers = {"Last-Event-ID": str(self.read[-1].id)} if self.read else {}
        with suppress(httpx.TransportError):
            async with server.client() as client, client.stream("GET", self._path, headers=headers) as response:
                assert response.status_code == 200
                async for message in messages(response):
                    if message.event == "end":
                        self.has_ended = True
                        return
                    self.read.append(message)

    def check(self) -> None:
        """Nothing is lost, and nothing is read twice."""
        assert [each.id for each in self.read] == list(range(1, len(self.read) + 1))
        assert self.tokens == {f"{SECRET}-{number}" for number in range(6)}
        assert self.has_ended


@pytest.mark.sample(every=2)
@pytest.mark.parametrize(
    ("framework", "number", "database"),
    [
        ("fastapi", signal.SIGTERM, "postgres"),
        ("fastapi", signal.SIGKILL, "sqlite"),
        ("aiohttp", signal.SIGTERM, "sqlite"),
        ("aiohttp", signal.SIGKILL, "postgres"),
    ],
)
async def test_a_stream_continues_on_the_next_server(
    serve: Serve, tmp_path: Path, framework: str, number: signal.Signals
) -> None:
    old, new = serve(framework), serve(framework)
    await until(old.answers, within=STARTS_WITHIN)
    await until(new.answers, within=STARTS_WITHIN)
    async with old.client() as client:
        answer = await client.post("/workflows/chat/runs", json={"params": {"gate": "g"}})
        run_id = answer.json()["run_id"]
        readers = [Reader(f"/runs/{run_id}/events") for _ in range(3)]
        reading = [asyncio.ensure_future(reader.connect(old)) for reader in readers]
        waiting = asyncio.ensure_future(client.get(f"/runs/{run_id}?wait=60"))
        await until(lambda: all(len(reader.tokens) == 3 for reader in readers))

        code = await old.end(number)  # uvicorn waits for open requests without a limit
        assert code in {0, -number}
        await asyncio.gather(*reading)
        if number is signal.SIGTERM:
            assert (await waiting).json()["status"] == "running"
        else:
            with pytest.raises(httpx.TransportError):
                await waiting

    assert not any(reader.has_ended for reader in readers)
    WebFlows(tmp_path).notes.open_gate("g")
    await asyncio.gather(*(reader.connect(new) for reader in readers))
    for reader in readers:
        reader.check()


@pytest.mark.parametrize("database", ["postgres"])
async def test_two_workers_serve_the_same_runs(serve: Serve, tmp_path: Path) -> None:
    server = serve("fastapi", workers=2)
    await until(server.answers, within=STARTS_WITHIN)

    async def post() -> str:
        async with server.client() as client:
            body, headers = {"params": {"gate": "g"}}, {"Idempotency-Key": "k"}
            answer = await client.post("/workflows/chat/runs", json=body, headers=headers)
            assert answer.status_code == 202, answer.text
            return str(answer.json()["run_id"])

    (run_id,) = set(await asyncio.gather(*(post() for _ in range(12))))
    readers = [Reader(f"/runs/{run_id}/events") for _ in range(12)]
    reading = [asyncio.ensure_future(reader.connect(server)) for reader in readers]
    await until(lambda: all(len(reader.tokens) == 3 for reader in readers))
    WebFlows(tmp_path).notes.open_gate("g")
    await asyncio.gather(*reading)
    for reader in readers:
        reader.check()

    last = Reader(f"/runs/{await started(server, 'approval')}/events")
    reading = [asyncio.ensure_future(last.connect(server))]
    await until(lambda: last.read)
    assert await server.end(signal.SIGTERM) in {0, -signal.SIGTERM}
    await asyncio.gather(*reading)


async def started(server: ServerProcess, workflow: str) -> str:
    async with server.client() as client:
        return str((await client.post(f"/workflows/{workflow}/runs")).json()["run_id"])
