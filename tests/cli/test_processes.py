"""Commands as processes: interrupted, killed, several at once; on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

from tests.cli.command import APP, PATIENCE, Commands, enqueue, finish, interrupt, status_of
from tests.cli.flows import GATE, LOG


def until(look: Callable[[], Any]) -> Any:
    """Look until what is seen is true."""
    give_up_at = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < give_up_at, seen
        time.sleep(0.02)
    return seen


def is_holding(commands: Commands, times: int = 1) -> Callable[[], bool]:
    log = commands.folder / LOG
    return lambda: log.exists() and log.read_text().count("hold\n") >= times


def put(commands: Commands, workflow: str) -> None:
    anyio.run(enqueue, commands.url, workflow, "one")


def stored_status(commands: Commands) -> str:
    return anyio.run(status_of, commands.url, "one")


def test_ctrl_c_stops_a_run_and_says_how_to_continue(commands_on_each: Commands) -> None:
    commands = commands_on_each
    running = commands.start("run", "held", *APP, "--id", "one")
    until(is_holding(commands))
    interrupt(running)
    stopped = finish(running)
    assert stopped.code == 3
    assert "run one stopped after " in stopped.stdout
    assert stopped.stderr == "continue it: spine-async resume one --app tests.cli.flows\n"

    (commands.folder / GATE).touch()
    resumed = commands.run(*stopped.stderr.removeprefix("continue it: spine-async ").split())
    assert resumed.code == 0
    assert (commands.folder / LOG).read_text() == "note\nhold\nhold\nend\n"


def test_ctrl_c_does_not_wait_for_threads(commands: Commands) -> None:
    running = commands.start("run", "thread", *APP, "--id", "one")
    until(is_holding(commands))
    interrupt(running)
    stopped = finish(running)
    assert stopped.code == 3
    assert "run one stopped after" in stopped.stdout
    assert stored_status(commands) == "stopped"


def test_a_step_that_ends_the_process(commands: Commands) -> None:
    ended = commands.run("run", "leaving", *APP, "--id", "one")
    assert ended.code == 1
    assert "error: a step has raised SystemExit(3), which ends the process" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert stored_status(commands) == "pending"


def test_a_killed_run_is_continued(commands: Commands) -> None:
    running = commands.start("run", "held", *APP, "--id", "one", "--json")
    until(is_holding(commands))
    running.kill()
    finish(running)
    (commands.folder / GATE).touch()
    resumed = commands.run("resume", "one", *APP, "--json")
    assert resumed.document["status"] == "completed"
    assert (commands.folder / LOG).read_text() == "note\nhold\nhold\nend\n"


def test_ctrl_c_during_a_resume(commands: Commands) -> None:
    put(commands, "held")
    resuming = commands.start("resume", "one", *APP, "--json")
    until(is_holding(commands))
    interrupt(resuming)
    stopped = finish(resuming)
    assert (stopped.code, stopped.document["status"], stopped.document["stop_reason"]) == (3, "stopped", "interrupted")


def test_ctrl_c_leaves_a_run_that_waits_for_its_turn(commands: Commands) -> None:
    anyio.run(partial(enqueue, commands.url, "held", "one", delay=3600))
    resuming = commands.start("resume", "one", *APP)
    until(lambda: listens_for_interrupts(resuming))
    interrupt(resuming)
    ended = finish(resuming)
    assert (ended.code, ended.stderr) == (
        130,
        "the run continues: spine-async watch one --app tests.cli.flows\n",
    )
    assert stored_status(commands) == "pending"


def test_a_worker_executes_what_other_processes_start_and_watch(commands_on_each: Commands) -> None:
    commands = commands_on_each
    worker = commands.start("worker", "tests.cli.flows", "--concurrency", "4", "--health-port", "0", "--json")
    assert worker.stderr is not None
    port = _health_port(worker)
    assert _get(port, "/healthz") == (200, "alive\n")
    assert until(lambda: _get(port, "/readyz")[0] == 200)
    assert _get(port, "/other")[0] == 404

    put(commands, "held")
    until(is_holding(commands))
    watching = commands.start("watch", "one", "--json")
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    assert first["event_type"] == "workflow_started"
    (commands.folder / GATE).touch()
    watched = finish(watching)
    assert watched.code == 0
    assert watched.lines[-1]["event_type"] == "workflow_completed"

    interrupt(worker, signal.SIGTERM)
    ended = finish(worker)
    assert ended.code == 0
    assert [json.loads(each)["message"] for each in ended.stderr.splitlines()][-1].endswith("has ended")


def test_a_worker_without_its_database_lives_and_is_not_ready(commands: Commands) -> None:
    nowhere = "postgresql://app:secret@127.0.0.1:1/app"
    worker = commands.start("worker", "tests.cli.flows", "--database", nowhere, "--health-port", "0")
    port = _health_port(worker)
    status, reason = _get(port, "/readyz")
    assert (status, reason.partition(":")[0]) == (503, "the store cannot be read")
    assert _get(port, "/healthz")[0] == 200
    interrupt(worker, signal.SIGTERM)
    ended = finish(worker)
    assert ended.code == 0
    assert "secret" not in ended.stderr


def test_sigterm_drains_a_worker_and_a_second_one_ends_it_at_once(commands: Commands) -> None:
    worker = commands.start("worker", "tests.cli.flows", "--drain-timeout", "600", "--health-port", "0", "--json")
    port = _health_port(worker)
    put(commands, "held")
    until(is_holding(commands))

    interrupt(worker, signal.SIGTERM)
    assert until(lambda: _get(port, "/readyz") == (503, "draining\n"))
    assert _get(port, "/healthz")[0] == 200
    assert stored_status(commands) == "running"
    interrupt(worker, signal.SIGTERM)
    assert finish(worker).code == 0
    assert stored_status(commands) == "pending"

    (commands.folder / GATE).touch()
    second = commands.start("worker", "tests.cli.flows")
    until(lambda: stored_status(commands) == "completed")
    interrupt(second)
    assert finish(second).code == 0
    assert (commands.folder / LOG).read_text() == "note\nhold\nhold\nend\n"


def test_a_killed_worker_is_replaced_by_another(commands: Commands) -> None:
    first = commands.start("worker", "tests.cli.flows")
    put(commands, "held")
    until(is_holding(commands))
    commands.start("worker", "tests.cli.flows")
    first.kill()
    until(is_holding(commands, times=2))
    (commands.folder / GATE).touch()
    until(lambda: stored_status(commands) == "completed")


def test_ctrl_c_ends_the_watching_and_not_the_run(commands: Commands) -> None:
    put(commands, "ask")
    watching = commands.start("watch", "one", "--json")
    until(lambda: listens_for_interrupts(watching))
    interrupt(watching)
    ended = finish(watching)
    assert ended.code == 130
    assert ended.stderr == "the run continues: spine-async watch one\n"
    assert stored_status(commands) == "pending"


def test_the_reader_of_the_output_ends_early(commands: Commands) -> None:
    shown = commands.start("graph", "large", *APP)
    assert shown.stdout is not None
    shown.stdout.close()
    assert shown.wait(PATIENCE) == 0
    assert shown.stderr is not None
    assert shown.stderr.read() == ""


def test_a_run_goes_on_without_a_reader_of_its_output(commands: Commands) -> None:
    running = commands.start("run", "held", *APP, "--id", "one")
    until(is_holding(commands))
    assert running.stdout is not None
    running.stdout.close()
    (commands.folder / GATE).touch()
    assert running.wait(PATIENCE) == 0
    assert stored_status(commands) == "completed"


def _health_port(worker: subprocess.Popen[str]) -> int:
    """The port that the log of a worker names."""
    assert worker.stderr is not None
    for line in worker.stderr:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/readyz", line)
        if found:
            return int(found[1])
    raise AssertionError("the worker has ended")


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def listens_for_interrupts(process: subprocess.Popen[str]) -> bool:
    """Whether the process has a handler of its own for SIGINT and SIGTERM, as Linux reports it."""
    with open(f"/proc/{process.pid}/status") as file:  # noqa: PTH123 - a file of the kernel
        caught = next(line for line in file if line.startswith("SigCgt:"))
    mask = int(caught.split()[1], 16)
    return bool(mask >> (signal.SIGTERM - 1) & 1)
