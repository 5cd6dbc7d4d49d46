"""The test's end of the warm process that forks programs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.interpreter import ROOT, environment

TIMEOUT = 120.0


class Forks:
    """Runs scripts as `python SCRIPT ARGUMENTS` does, without the seconds that the imports take in each process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.warm"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, script: Path, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run the script in a process of its own to its end.

        Raises:
            subprocess.TimeoutExpired: It took longer than `TIMEOUT` and was killed.
        """
        command = [str(script), *arguments]
        with tempfile.TemporaryDirectory(prefix="spine-fork-") as place:
            out, err = Path(place, "out"), Path(place, "err")
            code = self._ask(
                {
                    "arguments": command,
                    "folder": str(folder),
                    "stdout": str(out),
                    "stderr": str(err),
                    "timeout": TIMEOUT,
                }
            )
            if code is None:
                raise subprocess.TimeoutExpired(command, TIMEOUT)
            return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _ask(self, job: dict[str, object]) -> int | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the warm process ended with code {self._process.wait()}"
        code: int | None = json.loads(answer)
        return code
