"""Errors are texts with a way out and an exit code, and have no tracebacks."""

from __future__ import annotations

import inspect
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spine_async import errors
from spine_async.cli.exit_code import ExitCode
from spine_async.cli.perform import perform
from spine_async.cli.problem import CommandError, exit_code_of, text_of
from tests.cli.conftest import Cli
from tests.interpreter import environment

pytestmark = pytest.mark.allow_blocking  # a command has its event loop for itself, and prints in it

EXAMPLES: dict[type[errors.SpineError], Callable[[], errors.SpineError]] = {
    errors.RunError: lambda: errors.RunError("r", "something"),
    errors.InvalidRunIdError: lambda: errors.InvalidRunIdError("r", "invalid"),
    errors.RunNotFoundError: lambda: errors.RunNotFoundError("r"),
    errors.ScheduleNotFoundError: lambda: errors.ScheduleNotFoundError("s"),
    errors.RunBusyError: lambda: errors.RunBusyError("r", "host:1:x"),
    errors.QueueDeadlockError: lambda: errors.QueueDeadlockError("r", "mail"),
    errors.RunConflictError: lambda: errors.RunConflictError("r", "conflict"),
    errors.RunNotResumableError: lambda: errors.RunNotResumableError("r", "completed"),
    errors.RunEndedError: lambda: errors.RunEndedError("r", "approve"),
    errors.AttemptEndedError: lambda: errors.AttemptEndedError("r", "step", 1),
    errors.TooManyPendingEventsError: lambda: errors.TooManyPendingEventsError("r", 10),
    errors.InvalidSignalError: lambda: errors.InvalidSignalError("r", "approve", "bad"),
    errors.WorkflowChangedError: lambda: errors.WorkflowChangedError("r", "step", "is gone"),
    errors.RunFailedError: lambda: errors.RunFailedError("r", "failed", step="s", error="e"),
    errors.StoreCapabilityError: lambda: errors.StoreCapabilityError(
        "FileRunStore", "keeps no queues", "use a database"
    ),
    errors.LeaseLostError: lambda: errors.LeaseLostError("r"),
    errors.SchemaVersionError: lambda: errors.SchemaVersionError(9, 3, "upgrade the library"),
    errors.SharingError: lambda: errors.SharingError("shared", "do not"),
    errors.MissingExtraError: lambda: errors.MissingExtraError("a store", "redis"),
}
USAGE = (
    errors.DefinitionError,
    errors.InvalidRunIdError,
    errors.InvalidSignalError,
    errors.MissingExtraError,
    errors.RunNotFoundError,
    errors.ScheduleNotFoundError,
    errors.SerializationError,
)
ALL = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.SpineError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_of_the_library(kind: type[errors.SpineError], capsys: pytest.CaptureFixture[str]) -> None:
    error = EXAMPLES.get(kind, lambda: kind("a problem"))()

    async def action(output: object) -> int:
        raise error

    for as_json in (False, True):
        with pytest.raises(SystemExit) as ended:
            perform(action, as_json=as_json)
        printed = capsys.readouterr()
        assert ended.value.code == (2 if issubclass(kind, USAGE) else 1)
        assert "Traceback" not in printed.err
        if as_json:
            assert f'"type":"{kind.__name__}"' in printed.out
        else:
            assert printed.err.startswith("error: ")
            assert printed.out == ""


def test_ways_out_are_commands() -> None:
    assert "`spine-async runs`" in text_of(errors.RunNotFoundError("r"))
    assert "`spine-async watch`" in text_of(errors.RunBusyError("r"))
    assert exit_code_of(CommandError("wrong")) is ExitCode.USAGE


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["show", "none"], "run 'none' is not stored"),
        (["watch", "none"], "run 'none' is not stored"),
        (["resume", "none"], "run 'none' is not stored"),
        (["run", "no.such.module"], "module 'no.such.module' cannot be imported: No module named 'no'"),
        (["run", "tests.cli.flows:nothing"], "module 'tests.cli.flows' has no attribute 'nothing'"),
        (["run", "tests.cli.flows:GATE"], "tests.cli.flows:GATE is of type str; it must be a Workflow"),
        (["run", "tests.cli.served:number"], "is of type int"),
        (
            ["run", "tests.cli.flows"],
            "tests.cli.flows has 9 workflows: ask, broken, greet, held, idle, large, leaving, order, thread",
        ),
        (["run", "tests.cli.command"], "module 'tests.cli.command' has neither a Workflow nor a WorkflowRunner"),
        (["run", "unknown", "--app", "tests.cli.flows"], "tests.cli.flows has no workflow 'unknown'"),
        (["run", "not a module"], "'not a module' is no module"),
        (["run", "tests.cli.flows:greet", "--params", '{"a":'], "--params is not valid JSON"),
        (["run", "tests.cli.flows:greet", "--params", "[1]"], "--params is list; give a JSON object"),
        (["run", "tests.cli.flows:greet", "--params", '{"a": NaN}'], "NaN is not allowed in JSON"),
        (["run", "tests.cli.flows:greet", "--params", "@none.json"], "the file 'none.json' cannot be read"),
        (["run", "tests.cli.flows:greet", "-p", "name"], "'name' has no value; give name=value"),
        (["run", "tests.cli.flows:greet", "-p", "=1"], "'=1' has no name; give name=value"),
        (["run", "tests.cli.flows:greet", "--id", "\x1b"], "invalid run id"),
        (["run", "tests.cli.flows:order"], "amount"),
        (["run", "greet", "--queue", "q", "--delay", "soon"], "--delay is 'soon'; give a duration such as"),
        (["runs", "--since", "yesterday"], "--since is 'yesterday'; give a time such as"),
        (["runs", "--status", "done"], "there is no status 'done'; the statuses are pending, running, waiting,"),
        (["runs", "--cursor", "x"], "cursor is not valid"),
        (["signal", "one", "approve", "{"], "the value is not valid JSON"),
        (["graph", "tests.cli.flows"], "name one of them"),
        (["worker", "tests.cli.flows", "--health-port", "65536"], "less than or equal to 65535"),
        (["ui", "--port", "65536"], "less than or equal to 65535"),
        (["worker"], "a worker needs the module of its workflows"),
        (["worker", "tests.cli.flows", "--queue", "mail:speed=3"], "there is no limit 'speed'"),
        (["worker", "tests.cli.flows", "--queue", "mail:rate=fast"], "'fast' is no integer"),
        (["worker", "tests.cli.flows", "--concurrency", "0"], "worker_concurrency"),
        (["worker", "tests.cli.served:runner", "--concurrency", "5"], "has a runner with its own settings"),
        (["worker", "tests.cli.served:idle"], "the runner of tests.cli.served:idle has work=False"),
        (["runs", "--app", "tests.cli.served"], "tests.cli.served has 2 runners; name one: tests.cli.served:attribute"),
    ],
)
def test_bad_input(cli: Cli, arguments: list[str], text: str) -> None:
    refused = cli(*arguments, code=2)
    assert text in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stdout in {
        "",
        *refused.stdout.splitlines(keepends=True)[:1],
    }  # at most the line with the id of the run


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqlite:////proc/none/runs.db", "/proc/none"),
        ("sqlite:///.", "check that the folder exists"),
        ("postgresql://user:secret@127.0.0.1:1/db", "127.0.0.1"),
    ],
)
def test_no_database(cli: Cli, url: str, text: str) -> None:
    refused = cli("db", "upgrade", "--database", url, code=1)
    assert text in refused.stderr
    assert "secret" not in refused.stderr
    assert "Traceback" not in refused.stderr


WRONG_URLS = {
    "": "--database is empty; give the URL of a database, or leave out the option",
    "  ": "--database is empty",
    "mysql://user:secret@host/db": "--database: a database URL of kind 'mysql' is not supported; accepted are sqlite:///",
    "postgresql+psycopg://user:secret@host/db": "kind 'postgresql+psycopg' is not supported",
    "https://user:secret@host/db": "kind 'https' is not supported",
    "secret word": "--database: the database URL cannot be read, because it has no ://; accepted are sqlite:///",
    "runs.db": "it has no ://; accepted are sqlite:///path/to/file.db",
    "postgresql//user:secret@host/db": "it has no ://",
    "postgresql:/user:secret@host/db": "it has no ://",
    "postgresql://user:secret@host:port/db": "because its host or its port is not valid",
    "postgresql://user:secret@[::1/db": "because its host or its port is not valid",
    "postgresql://user:secret@host:99999/db": "the port 99999; a port is a number from 1 to 65535",
    "postgresql://user:secret@host:0/db": "the port 0; a port is a number from 1 to 65535",
    "postgresql://user:secret@host/db?secrets=1": "has the option 'secrets', which asyncpg does not support; remove it",
    "postgresql://user:secret@host/db?ssl=secret": "has the option 'ssl' with an invalid value; it must be one of",
    "sqlite://host/runs.db": "the database URL has a host; a SQLite URL has three slashes before the path",
    "sqlite:runs.db": "it has no ://",
    "redis://user:secret@host/0": "for runs on a Redis server, give the runner that stores them there by --app",
    "rediss://localhost": "for runs on a Redis server",
    "unix:///run/redis.sock": "for runs on a Redis server",
    "file:///var/runs": "for runs in a folder, give the runner that stores them there by --app",
}


@pytest.mark.parametrize("url", WRONG_URLS)
def test_a_wrong_url_is_wrong_usage(cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["runs"], ["db", "upgrade"], ["worker", "tests.cli.flows"], ["run", "tests.cli.flows:greet"]):
        refused = cli(*command, "--database", url, code=2)
        assert WRONG_URLS[url] in refused.stderr
        assert "secret@" not in refused.stderr
        assert "secret word" not in refused.stderr
        assert "Traceback" not in refused.stderr
    monkeypatch.setenv("SPINE_DATABASE_URL", url)
    refused = cli("runs", code=2)
    assert "SPINE_DATABASE_URL" in refused.stderr
    assert WRONG_URLS[url].removeprefix("--database").partition(";")[0] in refused.stderr


def test_a_missing_driver_is_wrong_usage(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spine_async.storage.sql.driver.url.find_spec", lambda name: None)
    refused = cli("runs", "--database", "postgresql://user:secret@host/db", code=2)
    assert "a database through asyncpg needs" in refused.stderr
    assert "pip install 'spine-async[postgres]'" in refused.stderr
    assert "secret" not in refused.stderr


def test_an_application_that_raises(cli: Cli) -> None:
    Path("broken_module.py").write_text("x = 1\nraise ZeroDivisionError('by nothing')\n")
    refused = cli("run", "broken_module", code=2)
    assert "ZeroDivisionError: by nothing" in refused.stderr
    assert "broken_module.py, line 2)" in refused.stderr


def test_wrong_usage(cli: Cli) -> None:
    assert "No such command 'wrong'" in cli("wrong", code=2).stderr
    assert "No such option" in cli("runs", "--wrong", code=2).stderr


def test_without_the_extra(tmp_path: Path) -> None:
    """A module that cannot be imported is what a missing package is to Python."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')")
    shown = subprocess.run(
        [sys.executable, "-m", "spine_async.cli", "--help"],
        env=environment() | {"PYTHONPATH": f"{tmp_path}:{environment()['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == "spine-async needs optional dependencies: pip install 'spine-async[cli]'\n"


@pytest.mark.parametrize("options", [(), ("--queue", "default")])
@pytest.mark.parametrize(("name", "module"), [("flow.py", "flow"), ("./flow.py", "flow"), ("app/flow.py", "app.flow")])
def test_a_file_is_no_module(cli: Cli, name: str, module: str, options: tuple[str, ...]) -> None:
    file = Path(name)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert f"is a file; give the name of its module: {module}\n" in cli("run", name, *options, code=2).stderr
    assert f"{str(file.resolve())!r} is a file" in cli("run", str(file.resolve()), *options, code=2).stderr


def test_a_health_port_that_is_taken(cli: Cli) -> None:
    """The error comes out of task groups."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused = cli("worker", "tests.cli.flows", "--health-port", str(port), code=2)
    assert refused.stderr.splitlines()[-1].startswith(f"error: the health port 127.0.0.1:{port} cannot be used")
    assert "Traceback" not in refused.stderr


def test_a_store_that_cannot_be_opened_is_told_once(cli: Cli) -> None:
    Path("broken.db").write_text("no database " * 100)
    refused = cli("runs", "--database", "sqlite:///broken.db", code=1)
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith("error: SQLite database ")
