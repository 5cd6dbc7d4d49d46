"""Tells open requests that the server is about to stop.

Theory of operation: a server that gets SIGTERM or SIGINT waits for open requests, and only then ends the lifespan of
the application. A stream of events would keep it waiting, and ASGI has no message for it. So the notice puts a handler
of its own in front of the handler of the server: it ends the streams and calls the handler of the server. It does so
only if there is a handler that it can call, and only in the main thread, where Python calls handlers.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeAlias

import anyio

Handler: TypeAlias = Callable[[int, FrameType | None], object]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ShutdownNotice:
    """A notice that is set once when the server is about to stop. It belongs to one event loop at a time."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = anyio.Event()
        self._listeners = 0
        self._previous: dict[signal.Signals, Handler] = {}

    @property
    def is_set(self) -> bool:
        """Whether the server is about to stop."""
        self._bind()
        return self._event.is_set()

    def set(self) -> None:
        """Set the notice; called in the event loop."""
        self._bind()
        self._event.set()

    async def wait(self) -> None:
        """Wait until the notice is set."""
        self._bind()
        await self._event.wait()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, SIGTERM and SIGINT set the notice before the server handles them."""
        self._bind()
        self._listeners += 1
        if threading.current_thread() is threading.main_thread():
            self._install()
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._uninstall()

    def _bind(self) -> None:
        """Forget the notice of an event loop that has ended."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._event, self._listeners = loop, anyio.Event(), 0

    def _install(self) -> None:
        for number in _SIGNALS:
            present = signal.getsignal(number)
            if callable(present) and present != self._handle:
                self._previous[number] = present
                signal.signal(number, self._handle)

    def _uninstall(self) -> None:
        """Restore the handlers, unless somebody has put others in front."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, previous in list(self._previous.items()):
            if signal.getsignal(number) == self._handle:
                signal.signal(number, previous)
                del self._previous[number]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)  # a signal may interrupt the loop anywhere
        previous = self._previous.get(signal.Signals(number))
        if previous is not None:
            previous(number, frame)
