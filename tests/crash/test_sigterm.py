"""A service receives SIGTERM: running steps may finish; the runs are given up, and other processes may claim them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import anyio
import pytest

from spine_async import WorkflowResult, WorkflowRunner, WorkflowRunnerConfig
from tests.crash.conftest import Rows
from tests.crash.service import DRAIN_TIMEOUT, flow
from tests.interpreter import ROOT, environment

pytestmark = pytest.mark.slow

PATIENCE = 60.0  # seconds to wait for a line
EXITS_WITHIN = DRAIN_TIMEOUT + 15.0  # enough on a busy machine


class Service:
    """The process of the service and its output."""

    def __init__(self, database_url: str, count: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.service", database_url, str(count)],
            cwd=ROOT,
            env=environment(PYTHONWARNINGS="error"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._impatience = threading.Timer(PATIENCE, self.process.kill)
        self._impatience.start()

    def hears(self, *lines: str) -> None:
        """Check that the next lines of output are these, in any order."""
        heard = [_out(self.process.stdout).readline().rstrip("\n") for _ in lines]
        assert sorted(heard) == sorted(lines)

    def finish_short(self) -> None:
        _out(self.process.stdin).write("\n")

    def exits(self) -> None:
        """Check that the process ends without help and with exit code 0."""
        code = self.process.wait(EXITS_WITHIN)
        assert (code, _out(self.process.stderr).read()) == (0, "")

    def end(self) -> None:
        self._impatience.cancel()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def count(tmp_path: Path) -> Path:
    return tmp_path / "count"


@pytest.fixture
def service(database_url: str, count: Path) -> Iterator[Service]:
    service = Service(database_url, count)
    yield service
    service.end()


def test_sigterm_drains_a_service(service: Service, count: Path, query: Callable[..., Rows]) -> None:
    service.hears("begun short", "begun long")
    begun = sorted(count.read_text().split())
    assert begun == ["long/before", "long/work", "short/before", "short/work"]
    service.process.send_signal(signal.SIGTERM)
    service.hears("leaving")
    service.finish_short()
    service.hears("ended short stopped shutdown")
    service.hears("cancelled long shutdown")
    service.hears("ended long stopped shutdown")
    service.exits()

    assert sorted(count.read_text().split()) == begun
    events = query("SELECT run_id, step_name FROM core_workflow_events WHERE event_type = 'step_started'")
    assert sorted("/".join(row) for row in events) == begun
    committed = query("SELECT run_id, path FROM core_workflow_checkpoints ORDER BY run_id, seq")
    assert committed == [("long", "before"), ("short", "before"), ("short", "work")]
    states = query(
        "SELECT run_id, status, stop_reason, owner, leased_until, claims_since_progress FROM core_workflow_runs "
        "WHERE due_at IS NOT NULL ORDER BY run_id"
    )
    assert states == [(run_id, "pending", None, None, None, 0) for run_id in ("long", "short")]


def test_other_processes_continue_the_runs_at_once(service: Service, database_url: str) -> None:
    service.hears("begun short", "begun long")
    service.process.send_signal(signal.SIGTERM)
    service.hears("leaving")
    service.finish_short()
    service.hears("ended short stopped shutdown")
    assert resumed(database_url, "short") == ["short/after"]  # the previous owner is still draining
    service.hears("cancelled long shutdown", "ended long stopped shutdown")
    assert resumed(database_url, "long") == ["long/work", "long/after"]
    service.exits()


def resumed(database_url: str, run_id: str) -> list[str]:
    """Continue the run in this process, with steps that end at once; returns the steps that began."""
    begun: list[str] = []

    async def resume() -> WorkflowResult:
        runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=database_url))
        return await runner.resume(run_id, workflow=flow(begun.append))

    result = anyio.run(resume)
    assert (result.status, result.completed_steps) == ("completed", ["before", "work", "after"])
    return begun


def _out(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
