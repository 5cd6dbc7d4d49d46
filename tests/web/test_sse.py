"""Streams of server-sent events: their form, and how they end."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncGenerator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from spine_async import RunNotFoundError, StoreError
from spine_async.web import sse
from spine_async.web.shutdown import ShutdownNotice
from spine_async.web.sse import EventStream

LIMIT = 30.0  # seconds


class Client:
    """Receives a stream."""

    def __init__(self, *, gone_after: int | None = None) -> None:
        self.parts: list[bytes] = []
        self.got_one = anyio.Event()
        self._gone_after = gone_after

    async def write(self, data: bytes) -> None:
        if self._gone_after is not None and len(self.parts) >= self._gone_after:
            raise ConnectionResetError
        self.parts.append(data)
        if len(self.parts) > 1:
            self.got_one.set()


class Source:
    """Messages, one at first, and how they go on."""

    def __init__(self, *, error: Exception | None = None, waits: bool = False, endless: bool = False) -> None:
        self.was_closed = False
        self._error, self._waits, self._endless = error, waits, endless

    async def messages(self) -> AsyncGenerator[bytes, None]:
        try:
            yield sse.message("first", event_id=1)
            while self._endless:
                await checkpoint()
                yield sse.message("more")
            if self._error is not None:
                raise self._error
            if self._waits:
                await anyio.sleep_forever()
        finally:
            self.was_closed = True


FIRST = [sse.opening(), sse.message("first", event_id=1)]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("one", ["data: one"]),
        ("one\ntwo", ["data: one", "data: two"]),
        ("one\r\ntwo\rid: 9\n", ["data: one", "data: two", "data: id: 9", "data: "]),
        ("", ["data: "]),
    ],
)
def test_each_line_of_a_message_is_data(data: str, lines: list[str]) -> None:
    assert sse.message(data).decode() == "\n".join(lines) + "\n\n"


def test_a_message_has_its_number_and_its_name() -> None:
    assert sse.message("x", event="end", event_id=3) == b"id: 3\nevent: end\ndata: x\n\n"


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "١", " 1", str(10**15), "9" * 5000])
def test_an_event_id_is_the_number_of_an_event(text: str) -> None:
    assert sse.parse_event_id("17") == 17
    with pytest.raises(ValueError, match="must be the number of an event"):
        sse.parse_event_id(text)


async def test_a_stream_ends_with_its_messages() -> None:
    client, source = Client(), Source()
    with anyio.fail_after(LIMIT):
        await EventStream(source.messages(), ShutdownNotice()).write_to(client.write)
    assert client.parts == FIRST
    assert source.was_closed


async def test_a_silent_stream_sends_comments() -> None:
    client, source = Client(), Source(waits=True)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(EventStream(source.messages(), ShutdownNotice(), heartbeat=0.001).write_to, client.write)
            await client.got_one.wait()
            while sse.comment() not in client.parts:
                await checkpoint()
            tasks.cancel_scope.cancel()
    assert source.was_closed


@pytest.mark.parametrize("gone_after", [0, 1, 2, 5])
async def test_a_stream_ends_when_the_client_is_gone(gone_after: int) -> None:
    client, source = Client(gone_after=gone_after), Source(endless=True)
    with anyio.fail_after(LIMIT):
        await EventStream(source.messages(), ShutdownNotice(), heartbeat=0.001).write_to(client.write)
    assert len(client.parts) == gone_after
    assert source.was_closed or gone_after == 0  # a generator that was never begun has nothing to close


@pytest.mark.parametrize("error", [StoreError("the database is away"), RunNotFoundError("r1"), ValueError("a fault")])
async def test_an_error_ends_the_stream_and_is_logged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    client, source = Client(), Source(error=error)
    with caplog.at_level(logging.INFO, "spine_async"), anyio.fail_after(LIMIT):
        await EventStream(source.messages(), ShutdownNotice()).write_to(client.write)
    assert client.parts == FIRST
    assert "an event stream" in caplog.text
    assert str(error) in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_open_streams_and_reaches_the_server(number: signal.Signals) -> None:
    received: list[int] = []

    def server_handler(number: int, frame: object) -> None:
        received.append(number)

    before = signal.signal(number, server_handler)
    notice, clients = ShutdownNotice(), [Client(), Client()]
    try:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                for client in clients:
                    tasks.start_soon(EventStream(Source(waits=True).messages(), notice).write_to, client.write)
                for client in clients:
                    await client.got_one.wait()
                os.kill(os.getpid(), number)
        assert received == [number]
        assert signal.getsignal(number) is server_handler
        assert notice.is_set

        late = Client()  # a client that connects again before the server has closed its sockets
        with anyio.fail_after(LIMIT):
            await EventStream(Source(waits=True).messages(), notice).write_to(late.write)
    finally:
        signal.signal(number, before)


async def test_notices_of_several_routers_do_not_disturb_each_other() -> None:
    received: list[int] = []

    def server_handler(number: int, frame: object) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, server_handler)
    first, second = ShutdownNotice(), ShutdownNotice()
    try:
        outer = first.listening()
        outer.__enter__()
        with second.listening():
            outer.__exit__(None, None, None)  # the first one ends while the second one is in front of it
            os.kill(os.getpid(), signal.SIGTERM)
            with anyio.fail_after(LIMIT):
                await second.wait()
                await first.wait()
        assert received == [signal.SIGTERM]
        with first.listening():
            assert signal.getsignal(signal.SIGTERM) is not server_handler
        assert signal.getsignal(signal.SIGTERM) is server_handler
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_signals_without_a_handler_of_a_server_stay_as_they_are() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with ShutdownNotice().listening():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
