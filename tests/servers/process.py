"""A server process of the suite's own, under a supervisor that outlives pytest by as much as it needs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import randbelow

PATIENCE = 30.0


class ServerError(Exception):
    """A server of the suite's own did not start."""


class ServerProcess:
    """One supervised server; `kill` and `start` are for tests of what happens when it goes away."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        is_ready: Callable[[], bool],
        *,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._is_ready = is_ready
        self._log = folder / "server.log"
        self._log.touch()
        task = {
            "command": list(command),
            "log": str(self._log),
            "folder": str(folder),
            "owner": owner,
            "env": {**os.environ, "LC_ALL": "C", "HOME": str(folder)},
        }
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py")), json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._answer()
        self._wait_until_ready()

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self._ask("kill")

    def start(self) -> None:
        """Run it again on the same port and folder; returns when it answers.

        It may end at once as long as processes of the killed server hold its memory; then it is run once more.
        """
        self._ask("start")
        self._wait_until_ready(is_restart=True)

    def stop(self) -> None:
        """SIGINT, after ten seconds SIGKILL; the folder is removed."""
        if self._supervisor.stdin is not None and not self._supervisor.stdin.closed:
            self._supervisor.stdin.close()
        self._supervisor.wait()
        if self._supervisor.stdout is not None:
            self._supervisor.stdout.close()

    def _ask(self, request: str) -> None:
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.write(request + "\n")
        self._supervisor.stdin.flush()
        self.pid = self._answer()

    def _answer(self) -> int:
        assert self._supervisor.stdout is not None
        line = self._supervisor.stdout.readline()
        if not line:
            raise ServerError(f"the server's supervisor ended with code {self._supervisor.wait()}")
        return int(line)

    def _wait_until_ready(self, *, is_restart: bool = False) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            has_ended = not _is_alive(self.pid)
            if has_ended and is_restart and time.monotonic() < deadline:
                self._ask("start")
            elif has_ended or time.monotonic() > deadline:
                log = self._log.read_text(errors="replace")
                self.stop()
                raise ServerError(f"the server did not start:\n{log[-4000:]}")
            time.sleep(0.02)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listened on a moment ago.

    The kernel gives none of these ports to a client, so none is taken before the server starts, or while it is away.
    """
    while True:
        port = 20_000 + randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _is_alive(pid: int) -> bool:
    try:  # a zombie still accepts signals; only its state shows that it has ended
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return _answers_signal(pid) if sys.platform != "linux" else False
    return state != "Z"


def _answers_signal(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
