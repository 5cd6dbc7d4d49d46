"""The verbs on a store without queues: a text that names the store, and no traceback."""

from __future__ import annotations

import sys

import pytest

from tests.cli.command import Outcome
from tests.cli.conftest import Cli

pytestmark = pytest.mark.allow_blocking  # a command has its event loop for itself, and prints in it

APP = ("--app", "tests.cli.file_app")
WORKING = (
    ("runs",),
    ("runs", "--queue", "mail", "--key", "k", "--partition", "day=1", "--parent", "r", "--owner", "r"),
    ("runs", "--count", "--since", "1h", "--until", "0s", "--ended-since", "1h", "--ended-until", "0s"),
    ("show", "one", "--events", "--outputs"),
    ("show", "one", "--step", "note"),
    ("watch", "one"),
    ("prune", "--completed", "1h"),
    ("stop", "one"),
    ("delete", "one"),
)
LACKING = (
    (("run", "greet", "--queue", "mail"), "keeps no queues; use a database, or leave out --queue"),
    (("run", "greet", "--queue", "mail", "--detach"), "keeps no queues"),
    (("signal", "one", "approve"), "stores no signals; use a database"),
    (("schedules",), "keeps no schedules"),
    *((("schedules", verb, "nightly"), "keeps no schedules") for verb in ("pause", "resume", "trigger")),
)


@pytest.fixture
def cli(cli: Cli) -> Cli:
    """Each test has a runner of its own: that of the module works in one event loop only."""

    def run(*arguments: str, code: int | None = 0) -> Outcome:
        sys.modules.pop("tests.cli.file_app", None)
        return cli(*arguments, *APP, code=code)

    return run


def test_what_every_store_can_do(cli: Cli) -> None:
    cli("run", "greet", "--id", "one")
    for arguments in WORKING:
        cli(*arguments)


@pytest.mark.parametrize(("arguments", "text"), LACKING)
def test_what_the_file_store_cannot_do(cli: Cli, arguments: tuple[str, ...], text: str) -> None:
    outcome = cli(*arguments, code=1)
    assert outcome.stderr.startswith(f"error: FileRunStore {text}")
    assert outcome.stdout == ""
    assert cli(*arguments, "--json", code=1).document["error"]["type"] == "StoreCapabilityError"


def test_the_list_of_queues_says_that_there_are_none(cli: Cli) -> None:
    assert cli("queues").stderr == "FileRunStore keeps no queues; use a database\n"
