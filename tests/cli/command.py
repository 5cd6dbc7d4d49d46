"""Runs the command line, in this process and in others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spine_async import WorkflowRunner, WorkflowRunnerConfig
from tests.interpreter import environment

APP = ("--app", "tests.cli.flows")
PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        """The documents of JSON lines."""
        return [json.loads(each) for each in self.stdout.splitlines()]


@dataclass
class Commands:
    """Starts commands as processes in one folder."""

    folder: Path
    url: str
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "spine_async.cli", *arguments],
            cwd=self.folder,
            env=environment(SPINE_DATABASE_URL=self.url, HOME=str(self.folder), **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.running.append(process)
        return process

    def run(self, *arguments: str, **variables: str) -> Outcome:
        return finish(self.start(*arguments, **variables))

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


async def enqueue(url: str, workflow: str, run_id: str, delay: float = 0) -> None:
    """Put a run into the queue `mail`."""
    async with _runner(url) as runner:
        await runner.enqueue(workflow, run_id=run_id, queue="mail", delay=delay)


async def status_of(url: str, run_id: str) -> str:
    """The stored status of a run."""
    async with _runner(url) as runner:
        return (await runner.get_run(run_id)).status


def _runner(url: str) -> WorkflowRunner:
    return WorkflowRunner(work=False, config=WorkflowRunnerConfig(database_url=url))


def finish(process: subprocess.Popen[str]) -> Outcome:
    """Wait for the end of a command."""
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return Outcome(process.returncode, stdout, stderr)


def interrupt(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> None:
    os.kill(process.pid, number)
