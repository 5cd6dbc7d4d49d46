"""The parent process of the programs: imports their modules, opens nothing, and forks a process for each program.

A line on standard input is a JSON job: `arguments` (the path of the script, then its arguments), `folder` (the working
directory), `stdout` and `stderr` (paths of files) and `timeout` in seconds. The answer is a line: the exit code, minus
the signal, or null where the process did not end in time and was killed. The forked process runs the script as
`__main__` and ends as an interpreter does. Started by `forks.py`.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import sys
from pathlib import Path
from typing import Any

from spine_async import WorkflowRunner
from spine_async.storage import SqlRunStore


def warm_up() -> None:
    """Import what comes with the first runner and with the first store of each database."""
    import anyio._backends._asyncio  # noqa: F401, PLC0415 (anyio imports it with the first loop)

    WorkflowRunner()
    for url in ("sqlite://", "postgresql://127.0.0.1/none"):
        SqlRunStore(url)
    gc.collect()
    gc.freeze()


def become(job: dict[str, Any]) -> None:
    """Run the program in this process, which was forked for it."""
    _redirect(0, os.devnull, os.O_RDONLY)
    for number, path in ((1, job["stdout"]), (2, job["stderr"])):
        _redirect(number, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.chdir(job["folder"])
    script = job["arguments"][0]
    sys.argv = job["arguments"]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


def _redirect(number: int, path: str, flags: int) -> None:
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, number)
    os.close(opened)


def wait_for(pid: int, end: int, timeout: float) -> int | None:
    """The exit code of the process, whose death closes the other side of the pipe; None where it was too late."""
    is_in_time = bool(select.select([end], [], [], timeout)[0])
    if not is_in_time:
        os.kill(pid, signal.SIGKILL)
    os.close(end)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if is_in_time else None


def main() -> None:
    warm_up()
    for line in sys.stdin:
        job = json.loads(line)
        end, held = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(end)
            become(job)
            return
        os.close(held)
        print(json.dumps(wait_for(pid, end, job["timeout"])), flush=True)


if __name__ == "__main__":
    main()
