"""The README leads from nothing to a run in the dashboard in five commands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cli.command import PATIENCE
from tests.interpreter import ROOT

BIN = Path(sys.executable).parent


def commands() -> list[str]:
    """The commands of the section; a here document is a part of its command."""
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("### See it in a browser")[2]
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [part.removeprefix("$ ").strip() for part in re.split(r"^(?=\$ )", block[1], flags=re.MULTILINE) if part]


def test_five_commands_lead_to_a_run_in_the_dashboard(tmp_path: Path) -> None:
    venv, install, write, run, serve = commands()
    assert venv == "python3 -m venv .venv"
    assert install == ".venv/bin/pip install -q '.[cli]'"
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(BIN)  # instead of the first two commands
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPINE_")}
    for command in (write, run):
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True, timeout=PATIENCE)
    arguments = serve.splitlines()[0].removeprefix(".venv/bin/").split()
    server = subprocess.Popen(
        [str(BIN / arguments[0]), *arguments[1:], "--port", "0"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        shown = serve.splitlines()[1].rpartition(": ")[0]
        assert line.startswith(f"{shown}: http://127.0.0.1:"), line
        address = line.rpartition(" ")[2].strip()
        runs = httpx.get(f"{address}/runs", timeout=PATIENCE)
        found = re.search(r'href="(/run\?id=[^"]+)"', runs.text)
        assert found is not None, runs.text
        page = httpx.get(address + found[1], timeout=PATIENCE).text
        assert page.count("box kind-lambda state-completed") == 2
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE) == 0
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("name", ["htmx.min.js", "htmx.LICENSE", "spine.css", "spine.js", "icon.svg"])
def test_the_files_of_the_dashboard_are_in_the_package(name: str) -> None:
    assert (ROOT / "spine_async" / "dashboard" / "static" / name).stat().st_size > 0
