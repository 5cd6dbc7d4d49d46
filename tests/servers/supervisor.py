"""Runs one server for as long as somebody holds the other end of its standard input.

    python supervisor.py JSON

The JSON object has `command`, `log`, `folder` (removed at the end, or null), `owner` (`[uid, gid]`, or null) and `env`.
Each line on standard input is a request: `kill` ends the server at once, `start` runs it again. At the end of the
input, whatever closed it, the server gets SIGINT, ten seconds later SIGKILL, and its folder is removed. So nothing is
left running when pytest ends, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

GRACE = 10.0


def start(task: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    owner = {"user": task["owner"][0], "group": task["owner"][1], "extra_groups": []} if task["owner"] else {}
    with open(task["log"], "ab") as log:  # noqa: PTH123  pathlib would double the time this process takes to start
        return subprocess.Popen(
            task["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=task["env"],
            **owner,
        )


def stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        server.send_signal(signal.SIGINT)
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def serve(task: Mapping[str, Any]) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    server = start(task)
    try:
        print(server.pid, flush=True)
        for line in sys.stdin:
            if line.strip() == "kill":
                server.kill()
                server.wait()
            elif line.strip() == "start":
                server = start(task)
            print(server.pid, flush=True)
    finally:
        stop(server)
        if task["folder"]:
            shutil.rmtree(task["folder"], ignore_errors=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
