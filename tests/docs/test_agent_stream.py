"""The agent that streams tokens, started as `docs/agents.md` says, killed in its third message and continued."""

from __future__ import annotations

import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.interpreter import ROOT, environment

LIMIT = 120
WHOLE = "Let me count the apples.\nLet me count the plums.\nThere are 12 apples and 40 plums in the store.\n"
Start = Callable[..., "subprocess.Popen[str]"]


def commands() -> list[list[str]]:
    """The arguments of the program, for each command of the page."""
    page = (ROOT / "docs" / "agents.md").read_text()
    lines = re.findall(r"^\$ python (docs/examples/agent_stream/chat\.py .*?)(?: & .*)?$", page, re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command of the page in an empty folder. It is killed after the test, or if it takes too long."""
    started: list[subprocess.Popen[str]] = []

    def start(command: list[str], *options: str) -> subprocess.Popen[str]:
        program, *arguments = command
        process = subprocess.Popen(
            [sys.executable, str(ROOT / program), *arguments, *options],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    def kill_all() -> None:
        for process in started:
            process.kill()

    timer = threading.Timer(LIMIT, kill_all)
    timer.start()
    yield start
    timer.cancel()
    kill_all()
    for process in started:
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    read = ""
    while not read.endswith(text):
        more = process.stdout.read(1)
        assert more, f"the process ended after {read!r}"
        read += more
    return read


@pytest.mark.slow
def test_a_killed_stream_continues_with_the_interrupted_message(start: Start, tmp_path: Path) -> None:
    first, again, follow = commands()
    assert first == again
    killed = start(first)
    begun = read_until(killed, "apples.")
    killed.send_signal(signal.SIGSTOP)  # so that it says nothing before the follower is there
    follower = start(follow)
    followed = read_until(follower, "apples.")
    killed.send_signal(signal.SIGCONT)
    begun += read_until(killed, "There ")
    killed.kill()
    killed.wait()

    continued, _ = start(again, "--pause", "0").communicate(timeout=LIMIT)
    followed += follower.communicate(timeout=LIMIT)[0]
    assert begun == "Let me count the apples.\nLet me count the plums.\nThere "
    for shown in (continued, followed):
        assert re.sub(r"There .*… interrupted\n", "", shown) == WHOLE
        assert shown.count("… interrupted") == 1
    with closing(sqlite3.connect(tmp_path / ".spine" / "runs.db")) as connection:
        began = [path for (path,) in connection.execute(STARTED)]
    assert began == ["speak", "speak#2", "speak#3", "speak#3", "use_tool", "use_tool#2"]


STARTED = """
SELECT path FROM core_workflow_events
WHERE event_type = 'step_started' AND step_name IN ('speak', 'use_tool') ORDER BY path
"""
