"""`runs`, `show`, `queues`, `graph` and `plan`, in this process."""

from __future__ import annotations

import pytest

from tests.cli.command import APP
from tests.cli.conftest import Cli

pytestmark = pytest.mark.allow_blocking  # a command has its event loop for itself, and prints in it


def test_the_stored_runs(cli: Cli) -> None:
    cli("run", "greet", *APP, "--id", "a/1")
    cli("run", "broken", *APP, "--id", "b/1", code=1)
    cli("run", "greet", "--queue", "mail", "--id", "a/2", "--detach")

    table = [line.split() for line in cli("runs").stdout.splitlines()]
    assert table[0] == ["RUN", "WORKFLOW", "STATUS", "CREATED", "DURATION", "QUEUE", "ERROR"]
    assert [row[:3] for row in table[1:]] == [
        ["a/2", "greet", "pending"],
        ["b/1", "broken", "failed"],
        ["a/1", "greet", "completed"],
    ]
    assert table[1][-1] == "mail"
    assert "mend: StepError: the disk is \\x1b[31mfull" in cli("runs").stdout

    def ids(*arguments: str) -> list[str]:
        return [each["run_id"] for each in cli("runs", "--json", *arguments).document["runs"]]

    assert ids("--status", "failed") == ["b/1"]
    assert ids("--workflow", "greet", "--oldest") == ["a/1", "a/2"]
    assert ids("--prefix", "a/") == ["a/2", "a/1"]
    assert ids("--queue", "mail") == ["a/2"]
    assert ids("--error-category", "DEPENDENCY") == ["b/1"]
    assert ids("--since", "1h") == ["a/2", "b/1", "a/1"]
    assert ids("--until", "2020-01-01") == []
    assert ids("--ended-since", "1h") == ["b/1", "a/1"]
    assert ids("--ended-until", "1h") == []
    assert ids("--owner", "nobody") == []
    cli("run", "greet", *APP, "--id", "p/1", "--partition", "region=EU", "--partition", "day=1")
    assert ids("--partition", "day=1") == ["p/1"]
    assert ids("--partition", "day=2") == []
    cli("delete", "p/1")
    assert cli("runs", "--until", "1h").stderr.startswith("no runs are stored that match in SQLite database ")

    page = cli("runs", "-n", "2", "--json").document
    assert [each["run_id"] for each in page["runs"]] == ["a/2", "b/1"]
    assert ids("--cursor", page["next_cursor"]) == ["a/1"]
    assert cli("runs", "-n", "2").stderr == f"there may be more: --cursor {page['next_cursor']}\n"

    assert cli("runs", "--count", "--json").document["counts"]["completed"] == 1
    assert "completed  1" in cli("runs", "--count").stdout


def test_an_empty_folder(cli: Cli) -> None:
    assert cli("runs").stderr == "no runs are stored in SQLite database .spine/runs.db\n"
    assert cli("runs", "--json").document == {"runs": [], "next_cursor": None}


def test_one_run(cli: Cli) -> None:
    cli("run", "large", *APP, "--id", "one", "-p", "name=Ada")
    shown = cli("show", "one", *APP, "--outputs", "--step", "note").stdout
    for expected in (
        "workflow  large (version 1)",
        "status    completed",
        'params    {"name":"Ada"}',
        "each        completed",
        "  [2] once  completed",
        "attempt 2",
        "context after note",
    ):
        assert expected in shown
    assert "\x1b" not in shown

    document = cli("show", "one", *APP, "--json", "--events", "--step", "each[1]/once").document
    rows = {row["path"]: row for row in document["timeline"]}
    assert (rows["each"]["kind"], rows["each"]["entries_completed"]) == ("map", 3)
    assert rows["each[1]/once"]["attempt"] == 2
    assert document["context"]["outputs"]["once"] == {"number": 2}
    assert document["events"][0]["event_type"] == "workflow_started"
    assert "step_started  note" in cli("show", "one", "--events").stdout


def test_a_visit_that_does_not_exist(cli: Cli) -> None:
    cli("run", "greet", *APP, "--id", "one")
    assert "has no finished visit of 'nowhere'" in cli("show", "one", "--step", "nowhere", code=2).stderr


def test_queues(cli: Cli) -> None:
    cli("run", "greet", "--queue", "mail", "--detach")
    cli("run", "greet", "--queue", "mail", "--delay", "1d", "--detach")
    (mail,) = [each for each in cli("queues", "--json").document["queues"] if each["name"] == "mail"]
    assert (mail["waiting"], mail["delayed"]) == (1, 1)
    table = [line.split() for line in cli("queues").stdout.splitlines()]
    assert ["mail", "1", "0", "1", "0"] in [row[:5] for row in table]


def test_a_workflow_as_a_tree_and_as_a_flowchart(cli: Cli) -> None:
    assert cli("graph", "large", *APP).stdout.splitlines() == [
        "large (version 1)",
        "├─ note  lambda",
        "├─ each  map note.items",
        "│  └─ once  lambda fail_once",
        "├─ done?  choice <lambda>  then → end  else → note",
        "└─ end  lambda note  undone by note",
    ]
    assert cli("graph", "tests.cli.flows:large", "--mermaid").stdout.startswith("flowchart TD\n")
    assert cli("graph", "large", *APP, "--json").document["mermaid"].startswith("flowchart TD\n")


def test_a_plan(cli: Cli) -> None:
    assert "1. note (lambda, handler=note)" in cli("plan", "large", *APP).stdout
    assert cli("plan", "large", *APP, "--json").document["steps"][1]["kind"] == "map"


@pytest.mark.parametrize("target", ["tests.cli.served:listed", "tests.cli.served:by_name", "tests.cli.served:runner"])
def test_what_an_attribute_can_be(cli: Cli, target: str) -> None:
    assert cli("plan", "greet", "--app", target, "--json").document["workflow"] == "greet"
