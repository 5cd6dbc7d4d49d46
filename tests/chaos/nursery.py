"""Starts the process that forks children, and talks to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.interpreter import ROOT, environment


class Nursery:
    """Forks children from a process that has imported all modules and has no open file or socket."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.children"],
            cwd=ROOT,
            env={**os.environ, **environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def fork(self, job: dict[str, Any]) -> int:
        """Fork a child that does the job; returns its process id."""
        pid = self._ask(job)
        assert isinstance(pid, int)
        return pid

    def wait(self, pid: int, seconds: float = 60.0, kill_after: float | None = None) -> int:
        """Wait until a child ends, or kill it after `kill_after` seconds; returns its exit code or minus the signal."""
        code = self._ask({"wait": pid, "seconds": seconds, "kill_after": kill_after})
        assert isinstance(code, int), f"child {pid} did not end within {seconds} s"
        return code

    def stops(self, pid: int, seconds: float = 60.0) -> bool:
        """Wait until a child stands still or has ended; returns whether it stands still."""
        give_up_at = time.monotonic() + seconds
        while (state := Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) not in {"T", "Z"}:
            assert time.monotonic() < give_up_at, f"child {pid} has neither stopped nor ended within {seconds} s"
            time.sleep(0.001)
        return state == "T"

    def signal(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _ask(self, question: dict[str, Any]) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the nursery ended with code {self._process.wait()}"
        return json.loads(answer)
