"""Checks, each in an environment of its own: `nox -s lint typing tests docs build`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "typing", "tests", "docs", "build"]

SUPPORTED = ("3.11", "3.12", "3.13")

SMOKE = """
import asyncio
from importlib.resources import files

from spine_async import Step, Workflow, WorkflowRunner


async def main() -> None:
    flow = Workflow("smoke", [Step.lambda_("greet", lambda context, config: {"hello": context.params["name"]})])
    async with WorkflowRunner(workflows=[flow]) as runner:
        result = await runner.execute(flow, params={"name": "wheel"}, run_id="smoke-1")
        stored = await runner.get_run("smoke-1")
    assert result.status == stored.status == "completed", result
    assert result.context.get_output("greet", "hello") == "wheel", result


assert files("spine_async").joinpath("py.typed").is_file(), "the wheel has no py.typed"
asyncio.run(main())
print("the wheel runs and stores a workflow")
"""


def found_pythons() -> list[str]:
    """The supported interpreters of this machine, on PATH or installed by pyenv."""
    candidates = {version: [shutil.which(f"python{version}"), *_pyenv(version)] for version in SUPPORTED}
    found = {version: next(filter(_works, paths), None) for version, paths in candidates.items()}
    return [path for path in found.values() if path] or [sys.executable]


def _pyenv(version: str) -> list[str]:
    return sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")), reverse=True)


def _works(path: str | None) -> bool:
    """Whether the path runs an interpreter; a shim of pyenv may have none."""
    return path is not None and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0


@nox.session
def lint(session: nox.Session) -> None:
    session.install("-q", "-e", ".[test]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    session.install("-q", "-e", ".[test]")
    session.run("mypy")


@nox.session(python=found_pythons())
def tests(session: nox.Session) -> None:
    session.install("-q", "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """The randomised tests at full size, which takes hours; `-- -k pauses` selects some of them.

    `SPINE_CHAOS_SEED` sets the seed. `SPINE_CHAOS_SHARE=0.1` reduces the size to a tenth.
    """
    session.install("-q", "-e", ".[test]")
    services = (f"tests/service/test_{name}.py" for name in ("many_waits", "queue_kills", "schedule_kills"))
    tests = ("tests/chaos", *services)
    session.run("pytest", *tests, "--numprocesses=0", *session.posargs, env={"SPINE_CHAOS": "full"})


@nox.session
def bench(session: nox.Session) -> None:
    """Measure: `nox -s bench -- --workloads W1,W2 --scale small --peers`; `-- --help` lists the options."""
    session.install("-q", "-e", ".[test]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(venv_backend="none")
def bench_peers(session: nox.Session) -> None:
    """Install the peers for `bench -- --peers`, each in an environment of its own under .nox/peers."""
    session.run(sys.executable, "-m", "benchmarks.peers", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into ./site, with warnings as errors; `-- serve` shows it while you write."""
    session.install("-q", "-e", ".[docs]")
    session.run("mkdocs", *(session.posargs or ["build", "--strict", "--quiet"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def openapi(session: nox.Session) -> None:
    """Compare the answers of the routes with their OpenAPI document, by generated requests: `-- --max-examples 100`."""
    session.install("-q", "-e", ".[test]", "schemathesis>=4.32")
    folder, port = session.create_tmp(), "8765"
    Path(folder, "runs.db").unlink(missing_ok=True)
    app = ["uvicorn", "--factory", "tests.web.program:create_fastapi", "--port", port, "--log-level", "critical"]
    variables = {**os.environ, "DATABASE_URL": f"sqlite:///{folder}/runs.db", "FOLDER": folder}
    server = subprocess.Popen([f"{session.bin}/python", "-m", *app], env=variables)
    try:
        config, header = ["--config-file", "tests/web/schemathesis.toml"], ["-H", "Authorization: schemathesis *"]
        address = f"http://127.0.0.1:{port}/openapi.json"
        session.run("st", *config, "run", address, *header, "--wait-for-schema", "60", *session.posargs)
    finally:
        server.terminate()
        server.wait()


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, and run a workflow in an environment that contains only the wheel."""
    folder = session.create_tmp()
    session.run("pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, ".")
    (wheel,) = Path(folder).glob("spine_async-*.whl")
    session.install("-q", str(wheel))
    wheel.unlink()
    session.chdir(folder)
    session.run("python", "-I", "-c", SMOKE)
