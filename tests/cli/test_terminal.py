"""Commands on a terminal: colours, the live picture, Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from spine_async import Event
from spine_async.cli.output import Output
from spine_async.cli.run_view import LiveView
from tests.cli.command import APP, PATIENCE
from tests.cli.flows import GATE
from tests.interpreter import environment

ESCAPE = "\x1b"


class Terminal:
    """A command whose input and output are a terminal."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "spine_async.cli", *arguments],
            cwd=folder,
            env=environment(
                **{"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", "HOME": str(folder)} | variables
            ),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - the child has one thread
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.shown = ""

    def read_until(self, is_seen: Callable[[str], bool]) -> str:
        """Read what the terminal shows until it has been seen."""
        give_up_at = time.monotonic() + PATIENCE
        while not is_seen(self.shown):
            assert time.monotonic() < give_up_at, self.shown
            if not self._read():
                time.sleep(0.01)
        return self.shown

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        """Wait for the end of the command; returns its exit code."""
        self.read_until(lambda shown: self.process.poll() is not None)
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE)
        os.close(self._ours)

    def _read(self) -> bool:
        try:
            read = os.read(self._ours, 65536)
        except (BlockingIOError, OSError):  # nothing to read, or nobody writes any more
            return False
        self.shown += read.decode("utf-8", "replace")
        return bool(read)


def _take_terminal() -> None:
    import fcntl  # noqa: PLC0415 - in the child only
    import termios  # noqa: PLC0415 - the same

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Open]:
    opened: list[Terminal] = []

    def start(*arguments: str, **variables: str) -> Terminal:
        opened.append(Terminal(tmp_path, *arguments, **variables))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_a_run_is_drawn_while_it_goes_on(terminal: Open, tmp_path: Path) -> None:
    command = terminal("run", "held", *APP, "--id", "one")
    seen = command.read_until(lambda shown: "1 of 2 holding" in shown)
    assert ESCAPE in seen
    assert "STATUS" in seen
    (tmp_path / GATE).touch()
    assert command.end() == 0
    assert "completed" in command.shown.rpartition("run one ")[2]
    assert command.shown.rpartition("?25")[2].startswith("h")  # the cursor is shown again


def test_ctrl_c_on_a_terminal(terminal: Open, tmp_path: Path) -> None:
    command = terminal("run", "held", *APP, "--id", "one")
    command.read_until(lambda shown: "1 of 2 holding" in shown)
    command.press("\x03")
    assert command.end() == 3
    assert "spine-async resume one --app tests.cli.flows" in command.shown
    assert command.shown.rpartition("?25")[2].startswith("h")


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_plain_lines_on_a_terminal(terminal: Open, variables: dict[str, str]) -> None:
    command = terminal("run", "greet", *APP, **variables)
    assert command.end() == 0
    assert "step_completed  again" in command.shown
    assert ESCAPE not in command.shown


def test_a_picture_that_is_higher_than_the_terminal() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    view = LiveView(Output(), "one", None)
    for number in range(1, 41):
        view.add(Event("one", number, "step_started", f"step {number}", f"step {number}", began, {}))
    console = Console(width=60, height=14, record=True, file=StringIO())
    console.print(view._picture(console.height))
    lines = console.export_text().splitlines()
    assert len(lines) == 12
    assert lines[1].startswith("… 30 earlier visits")
    assert lines[-1].startswith("step 40")
