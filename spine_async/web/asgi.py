"""Sends a stream of events over ASGI, for applications of Starlette and FastAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

import anyio

from spine_async.web import sse
from spine_async.web.sse import EventStream

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class EventStreamResponse:
    """An ASGI application that sends one stream; Starlette accepts it as the response of an endpoint.

    It ends when the stream has ended, or with `http.disconnect`.

    Args:
        stream: The stream.
        headers: Further headers.
    """

    def __init__(self, stream: EventStream, headers: Mapping[str, str] | None = None) -> None:
        self._stream = stream
        self._headers = {"Content-Type": sse.MEDIA_TYPE, **sse.HEADERS, **(headers or {})}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        async with anyio.create_task_group() as tasks:

            async def end_with_client() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(end_with_client)
            await self._stream.write_to(write)
            tasks.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
