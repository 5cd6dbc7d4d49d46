"""The commands of `docs/command-line.md`, with the example of a worker."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spine_async.cli.verbs import app
from tests.cli.command import Commands, finish, interrupt
from tests.interpreter import ROOT

PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs" / "examples" / "worker"
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def commands(tmp_path: Path, sqlite_url: str) -> Iterator[Commands]:
    """Starts commands in a copy of the example's folder."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    started = Commands(tmp_path, sqlite_url)
    yield started
    started.end()


def arguments(block: str) -> list[list[str]]:
    """The arguments of each command of a block."""
    lines = re.findall(r"^\$ spine-async (.*)$", block, re.MULTILINE)
    return [shlex.split(re.split(r" [|&>]", line)[0], comments=True) for line in lines]


def test_the_first_commands(commands: Commands) -> None:
    worker, run, show, signal, watch = arguments(BLOCKS[1])
    working = commands.start(*worker)
    assert commands.run(*run).stdout == "inv-7\n"
    following = commands.start(*watch)
    assert following.stdout is not None
    for line in following.stdout:
        if "step_started  approve" in line:
            break
    shown = commands.run(*show).stdout
    assert "workflow  invoices (version 1)" in shown
    assert 'params    {"customer":"Ada"}' in shown
    assert re.search(r"^approve +waiting .* waits for signal approve$", shown, re.MULTILINE)
    assert commands.run(*signal).stdout == "signal approve is stored for run inv-7\n"
    assert finish(following).code == 0
    assert (commands.folder / "invoice-inv-7.txt").read_text() == "Ada: 1500 cents\n"
    interrupt(working)
    assert finish(working).code == 0


def test_the_tree(commands: Commands) -> None:
    block = next(each for each in BLOCKS if "├─ price" in each)
    graph, _ = arguments(block)
    assert commands.run(*graph).stdout in block


def test_every_command_has_the_options_that_the_page_names() -> None:
    helps: dict[str, str] = {}
    for command in [each for block in BLOCKS for each in arguments(block)]:
        verb = command[0]
        if verb.startswith("-"):
            continue
        if verb not in helps:
            helps[verb] = CliRunner().invoke(app, [verb, "--help"], terminal_width=200).stdout
        for option in [each for each in command if each.startswith("-") and not each.startswith("-p")]:
            assert option in helps[verb], command
    assert {"run", "worker", "runs", "show", "prune", "signal", "stop", "delete", "schedules", "graph"} <= helps.keys()


@pytest.mark.parametrize("file", ["spine-worker.service", "deployment.yaml"])
def test_the_units_start_a_worker(file: str) -> None:
    text = (EXAMPLE / file).read_text(encoding="utf-8")
    options = set(
        re.findall(r"--[a-z-]+", text.partition("worker invoices")[2] or text.partition("worker, invoices")[2])
    )
    shown = CliRunner().invoke(app, ["worker", "--help"], terminal_width=200).stdout
    assert "--drain-timeout" in options
    assert all(option in shown for option in options)


def test_the_page_has_every_verb() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    verbs = re.findall(r"^  ([a-z]+)  ", shown.partition("Commands:")[2], re.MULTILINE)
    assert len(verbs) >= 15
    assert [verb for verb in verbs if f"`{verb}" not in PAGE] == []
