"""A TCP proxy in front of a server that drops the reply to a request which the server has executed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sqlalchemy.engine import URL, make_url


class ReplyDropper:
    """Forwards bytes both ways; on request, closes a connection when the server's reply arrives.

    Attributes:
        dropped: The number of dropped replies.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._skip: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.dropped = 0

    def drop_next(self, *, after: int = 0) -> None:
        """Drop one reply to a later request: the first, or the one after the given number of others."""
        self._skip = after

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, onward = await asyncio.open_connection(*self._target)
        ends = {writer, onward}
        self._writers |= ends
        try:
            await asyncio.wait(
                [asyncio.create_task(self._requests(reader, onward)), asyncio.create_task(self._replies(back, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self.cut(ends)

    def cut(self, ends: set[asyncio.StreamWriter] | None = None) -> None:
        """End these connections, or all."""
        for end in ends if ends is not None else set(self._writers):
            end.transport.abort()
            self._writers.discard(end)

    async def _requests(self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                onward.write(data)
                await onward.drain()

    async def _replies(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await back.read(65536):
                if self._is_lost():
                    return
                writer.write(data)
                await writer.drain()

    def _is_lost(self) -> bool:
        if self._skip is None:
            return False
        self._skip -= 1
        if self._skip >= 0:
            return False
        self._skip, self.dropped = None, self.dropped + 1
        return True


@contextlib.asynccontextmanager
async def reply_dropper(url: str) -> AsyncIterator[tuple[ReplyDropper, URL]]:
    """A proxy in front of the server of this URL, and the URL of the proxy."""
    target = make_url(url)
    assert target.host is not None
    assert target.port is not None
    dropper = ReplyDropper(target.host, target.port)
    server = await asyncio.start_server(dropper.serve, "127.0.0.1", 0)
    try:
        yield dropper, target.set(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        dropper.cut()
        await asyncio.sleep(0)
