"""A TCP proxy before a server that stops forwarding without closing anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sqlalchemy.engine import URL, make_url


class SilentProxy:
    """Forwards bytes in both directions until `fall_silent`.

    Attributes:
        connections: How many connections were accepted.
        silent_at: Bytes with which it falls silent, instead of forwarding them; or None.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._silenced: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._served: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.silent_at: bytes | None = None

    def fall_silent(self) -> None:
        """Forward nothing, on present and on new connections."""
        self._speaks.clear()
        self._silenced |= self._writers

    def speak(self) -> None:
        """Forward on new connections; those that were silenced stay silent."""
        self._speaks.set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        self._served.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._speaks.wait()
        back, onward = await asyncio.open_connection(*self._target)
        ends = {writer, onward}
        self._writers |= ends
        tasks = [asyncio.create_task(self._forward(reader, onward)), asyncio.create_task(self._forward(back, writer))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._close(ends)

    async def close(self) -> None:
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)
        self._close(set(self._writers))

    def _close(self, ends: set[asyncio.StreamWriter]) -> None:
        for end in ends:
            end.transport.abort()
            self._writers.discard(end)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.silent_at is not None and self.silent_at in data:
                    self.fall_silent()
                if writer in self._silenced:
                    await asyncio.Event().wait()
                writer.write(data)
                await writer.drain()


@contextlib.asynccontextmanager
async def silent_proxy(url: str) -> AsyncIterator[tuple[SilentProxy, URL]]:
    """A proxy before the server of this URL, and the URL that leads through it."""
    target = make_url(url)
    assert target.host is not None
    assert target.port is not None
    proxy = SilentProxy(target.host, target.port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    try:
        yield proxy, target.set(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await proxy.close()
        await asyncio.sleep(0)
