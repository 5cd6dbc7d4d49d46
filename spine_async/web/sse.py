"""Server-sent events: their text form, and streams that end at a shutdown of the server.

Source: the HTML standard, "Server-sent events"; https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeAlias

import anyio

from spine_async.errors import RunNotFoundError, StoreError
from spine_async.web.shutdown import ShutdownNotice

Write: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends bytes to the client; raises `OSError` if the client is gone."""

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers of a stream: caches do not store it, and nginx does not buffer it."""

HEARTBEAT = 15.0
"""Seconds between two comments, so that proxies keep the connection and a client that is gone is noticed."""

RECONNECT_MS = 1000
"""Milliseconds after which a browser connects again when a stream has ended."""

_MAX_SEQ = 10**15 - 1  # JavaScript represents such numbers exactly
_log = logging.getLogger("spine_async")


def message(data: str, *, event: str | None = None, event_id: int | None = None) -> bytes:
    r"""One message.

    Args:
        data: Text of the message; may have several lines.
        event: Name for which a browser calls listeners; None means `message`. Must be one line.
        event_id: Number that the browser sends as `Last-Event-ID` when it connects again; None keeps the last one.

    Example:
        >>> message('{"done":1}', event_id=7)
        b'id: 7\ndata: {"done":1}\n\n'
    """
    lines = [f"id: {event_id}"] if event_id is not None else []
    if event is not None:
        lines.append(f"event: {event}")
    lines += [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


def comment(text: str = "") -> bytes:
    """A line that clients ignore."""
    return f": {text}\n\n".encode()


def opening() -> bytes:
    """The beginning of a stream. It makes the server send the headers, and sets the delay of reconnects."""
    return f"retry: {RECONNECT_MS}\n\n".encode()


def parse_event_id(text: str) -> int:
    """The number in a `Last-Event-ID` header.

    Raises:
        ValueError: The text is no number of an event.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_MAX_SEQ)) or int(text) > _MAX_SEQ:
        raise ValueError(f"Last-Event-ID is {text[:40]!r}; it must be the number of an event, such as 17")
    return int(text)


class EventStream:
    """Sends messages to one client until they end, the client is gone, or the server is about to stop.

    An error of the messages ends the stream: its headers are sent, so no other answer is possible. The client connects
    again and continues with `Last-Event-ID`.

    Args:
        messages: The messages in their text form. The stream closes the iterator.
        notice: Tells that the server is about to stop.
        heartbeat: Seconds between two comments.
    """

    def __init__(
        self, messages: AsyncGenerator[bytes, None], notice: ShutdownNotice, *, heartbeat: float = HEARTBEAT
    ) -> None:
        self._messages = messages
        self._notice = notice
        self._heartbeat = heartbeat
        self._lock = anyio.Lock()

    async def write_to(self, write: Write) -> None:
        """Send all messages.

        Args:
            write: Sends bytes to the client.

        Cancellation:
            Ends the stream.
        """
        try:
            with self._notice.listening():
                await self._write_all(write)
        finally:
            with anyio.CancelScope(shield=True):
                await self._messages.aclose()

    async def _write_all(self, write: Write) -> None:
        async with anyio.create_task_group() as tasks:
            scope = tasks.cancel_scope

            async def send(data: bytes) -> None:
                try:
                    async with self._lock:
                        await write(data)
                except OSError:
                    scope.cancel()

            async def beat() -> None:
                while True:
                    await anyio.sleep(self._heartbeat)
                    await send(comment())

            async def end_at_shutdown() -> None:
                await self._notice.wait()
                scope.cancel()

            tasks.start_soon(beat)
            tasks.start_soon(end_at_shutdown)
            await send(opening())
            await self._send_messages(send)
            scope.cancel()

    async def _send_messages(self, send: Write) -> None:
        try:
            async for each in self._messages:
                await send(each)
        except RunNotFoundError as exc:
            _log.info("an event stream has ended: %s", exc)
        except StoreError as exc:
            _log.warning("an event stream was interrupted: %s", exc)
        except Exception:  # noqa: BLE001 - logged; the headers are sent, so there is no other answer
            _log.exception("an event stream was interrupted")
