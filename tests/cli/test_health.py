"""The health server of a worker."""

from __future__ import annotations

import socket

import anyio
import pytest

from spine_async.cli.health import health_server
from spine_async.cli.problem import CommandError

pytestmark = pytest.mark.anyio


async def ask(port: int, request: bytes) -> bytes:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(request)
        received = b""
        with anyio.fail_after(20):
            while True:
                try:
                    received += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return received


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /healthz HTTP/1.1", b"200 OK"),
        (b"GET /readyz?full=1 HTTP/1.0", b"503 Service Unavailable"),
        (b"POST /healthz HTTP/1.1", b"405 Method Not Allowed"),
        (b"GET / HTTP/1.1", b"404 Not Found"),
        (b"nonsense", b"400 Bad Request"),
    ],
)
async def test_answers(request_line: bytes, status: bytes) -> None:
    async def check() -> str | None:
        return "draining"

    async with health_server("127.0.0.1", 0, check) as port:
        answer = await ask(port, request_line + b"\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


async def test_a_head_request_has_no_body() -> None:
    async def check() -> str | None:
        return None

    async with health_server("127.0.0.1", 0, check) as port:
        answer = await ask(port, b"HEAD /readyz HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\n")


async def test_clients_that_say_too_much_or_leave() -> None:
    async def check() -> str | None:
        return None

    async with health_server("127.0.0.1", 0, check) as port:
        assert await ask(port, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000) == b""
        leaving = await anyio.connect_tcp("127.0.0.1", port)
        await leaving.send(b"GET /hea")
        await leaving.aclose()
        assert (await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


async def test_a_port_that_is_taken() -> None:
    async def check() -> str | None:
        return None

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CommandError, match=f"the health port 127.0.0.1:{port} cannot be used"):
            async with health_server("127.0.0.1", port, check):
                pass
