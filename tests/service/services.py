"""The test's end of the services: starts them, asks them, and ends them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.interpreter import ROOT, environment

PATIENCE = 45.0  # seconds; shorter than the leases and polls that a test excludes


async def until(look: Callable[..., Any], *, within: float = PATIENCE, every: float = 0.005) -> Any:
    """Look until what is seen is true, and return it. `look` is called without arguments; it may be a coroutine."""
    give_up_at = asyncio.get_running_loop().time() + within
    while True:
        seen = look()
        value = await seen if isinstance(seen, Awaitable) else seen
        if value:
            return value
        if asyncio.get_running_loop().time() > give_up_at:
            raise AssertionError(f"not within {within} s; last seen: {value!r}")
        await asyncio.sleep(every)


class RemoteError(Exception):
    """A question to a service raised an exception there."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {text}")


class Forker:
    """The warm process from which the services are forked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.service.children"],
            cwd=ROOT,
            env={**os.environ, **environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, job: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Service:
    """A process with an entered runner. Each question is answered by a task of its own there."""

    def __init__(self, forker: Forker, folder: Path, job: dict[str, Any]) -> None:
        self._forker = forker
        self._folder = folder
        self._job = job
        self._numbers = itertools.count()
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._words: dict[str, asyncio.Event] = {word: asyncio.Event() for word in ("entered", "leaving", "left")}
        self._gone = asyncio.Event()
        self._code: int | None = None

    async def enter(self) -> None:
        """Start the process; its runner is entered when this returns."""
        socket = self._folder / f"s{next(_SOCKETS)}"
        connected = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writer = writer
            connected.set()
            await self._listen(reader)
            writer.close()

        self._server = await asyncio.start_unix_server(serve, str(socket))
        self.pid = self._forker.ask({**self._job, "socket": str(socket)})
        await asyncio.wait_for(self._said("entered"), PATIENCE)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            words = json.loads(line)
            if "number" in words:
                self._settle(self._open.pop(words["number"]), words)
            else:
                self._words[next(iter(words))].set()
        self._gone.set()
        for future in self._open.values():
            future.cancel()

    @staticmethod
    def _settle(future: asyncio.Future[Any], words: dict[str, Any]) -> None:
        if future.cancelled():
            return
        if "error" in words:
            future.set_exception(RemoteError(words["error"], words["text"]))
        else:
            future.set_result(words["answer"])

    async def _said(self, word: str) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._words[word], self._gone)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        assert self._words[word].is_set(), f"the service ended before it said {word!r}: {self._errors()}"

    def post(self, what: str, **arguments: Any) -> tuple[int, asyncio.Future[Any]]:
        """Ask without waiting: the number of the task there, and its answer."""
        number = next(self._numbers)
        self._open[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps({"number": number, "do": what, **arguments}).encode() + b"\n")
        return number, self._open[number]

    async def ask(self, what: str, **arguments: Any) -> Any:
        return await asyncio.wait_for(self.post(what, **arguments)[1], PATIENCE)

    def cancel(self, task: int) -> None:
        """Cancel the task that answers this question."""
        self._writer.write(json.dumps({"number": -1, "do": "cancel", "task": task}).encode() + b"\n")

    async def kill(self) -> None:
        """SIGKILL; the process is gone when this returns."""
        await self._end(signal.SIGKILL)
        assert self._code == -signal.SIGKILL

    async def terminate(self) -> None:
        """SIGTERM; the process has ended by itself, without an error, when this returns."""
        await self._end(signal.SIGTERM)
        assert self._code == 0, self._errors()

    @property
    def is_gone(self) -> bool:
        return self._gone.is_set()

    async def died(self) -> int:
        """Wait until the process has ended by itself; returns its exit code."""
        await asyncio.wait_for(self._gone.wait(), PATIENCE)
        self._code = self._forker.ask({"wait": self.pid})
        return self._code

    async def _end(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
        try:
            await asyncio.wait_for(self._gone.wait(), PATIENCE)
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            await self._gone.wait()
        self._code = self._forker.ask({"wait": self.pid})

    async def close(self) -> None:
        if self._code is None:
            await self._end(signal.SIGKILL)
        self._server.close()

    def _errors(self) -> str:
        errors = Path(self._job["folder"], "errors")
        return errors.read_text() if errors.exists() else "no error"


_SOCKETS = itertools.count()
