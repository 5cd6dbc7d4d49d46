"""A small HTTP server by which an orchestrator checks whether a worker lives, and whether it is ready.

`GET /healthz` answers 200 as long as the event loop works. `GET /readyz` answers 200 while the worker claims runs and
its store can be read, else 503.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import anyio
from anyio.abc import SocketAttribute, SocketStream

from spine_async.cli.problem import CommandError

_TIME_LIMIT = 5.0  # seconds for one request
_LONGEST_REQUEST = 8192  # bytes

Check = Callable[[], Awaitable[str | None]]
"""Returns why the worker is not ready, or None if it is."""


@asynccontextmanager
async def health_server(host: str, port: int, check: Check) -> AsyncGenerator[int, None]:
    """Serve inside the context; yields the port.

    Raises:
        CommandError: The port cannot be used.
    """
    try:
        listener = await anyio.create_tcp_listener(local_host=host, local_port=port, reuse_port=False)
    except OSError as exc:
        raise CommandError(f"the health port {host}:{port} cannot be used: {exc.strerror or exc}") from None
    async with listener, anyio.create_task_group() as tasks:

        async def answer(stream: SocketStream) -> None:
            async with stream:
                with anyio.move_on_after(_TIME_LIMIT):
                    await _answer(stream, check)

        tasks.start_soon(listener.serve, answer)
        try:
            yield listener.extra(SocketAttribute.local_port)  # noqa: S610 - no query of Django
        finally:
            tasks.cancel_scope.cancel()


async def _answer(stream: SocketStream, check: Check) -> None:
    try:
        head = await _head(stream)
        if head is not None:
            await stream.send(await _response(head, check))
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return  # the client has gone


async def _head(stream: SocketStream) -> bytes | None:
    received = b""
    while b"\r\n\r\n" not in received:
        if len(received) > _LONGEST_REQUEST:
            return None
        received += await stream.receive()
    return received


async def _response(head: bytes, check: Check) -> bytes:
    parts = head.partition(b"\r\n")[0].split(b" ")
    method, target = (parts[0], parts[1].partition(b"?")[0]) if len(parts) == 3 else (b"", b"")
    if method not in {b"GET", b"HEAD"}:
        status, text = HTTPStatus.METHOD_NOT_ALLOWED if method else HTTPStatus.BAD_REQUEST, "use GET"
    elif target == b"/healthz":
        status, text = HTTPStatus.OK, "alive"
    elif target == b"/readyz":
        problem = await check()
        status, text = (HTTPStatus.OK, "ready") if problem is None else (HTTPStatus.SERVICE_UNAVAILABLE, problem)
    else:
        status, text = HTTPStatus.NOT_FOUND, "there are /healthz and /readyz"
    body = f"{text}\n".encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == b"HEAD" else body)
