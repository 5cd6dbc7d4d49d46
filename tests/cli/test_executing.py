"""`run`, `resume` and `watch`, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from spine_async.cli.place import Place
from tests.cli.command import APP
from tests.cli.conftest import Cli
from tests.cli.flows import LOG

pytestmark = pytest.mark.allow_blocking  # a command has its event loop for itself, and prints in it


def test_a_run_from_start_to_end(cli: Cli) -> None:
    done = cli("run", "greet", *APP, "--id", "first", "-p", "name=Ada")
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    assert lines[0] == ["run first", "greet"]
    assert [line[1:3] for line in lines[1:-2]] == [
        ["workflow_started"],
        ["step_started", "note"],
        ["step_completed", "note"],
        ["step_started", "again"],
        ["step_completed", "again"],
        ["workflow_completed"],
    ]
    assert lines[-2][0].startswith("run first completed after ")
    assert lines[-1] == ['output of again: {"for":"Ada","items":[1,2,3]}']
    assert done.stderr == ""


def test_a_run_as_json(cli: Cli) -> None:
    document = cli("run", "tests.cli.flows:greet", "--params", '{"name": "Ada"}', "--json").document
    assert document["status"] == "completed"
    assert document["outputs"]["again"] == {"for": "Ada", "items": [1, 2, 3]}
    assert document["params"] == {"name": "Ada"}


def test_a_failed_run_is_continued(cli: Cli) -> None:
    failed = cli("run", "broken", *APP, "--id", "it's", code=1)
    assert "run it's failed after" in failed.stdout
    assert "at mend (DEPENDENCY): StepError: the disk is \\x1b[31mfull" in failed.stdout
    assert failed.stderr == "continue it: spine-async resume 'it'\"'\"'s' --app tests.cli.flows\n"

    resumed = cli("resume", "it's", *APP, "-p", "mended=true")
    assert "workflow_resumed" in resumed.stdout
    assert "workflow_started" not in resumed.stdout
    assert 'output of mend: {"mended":true}' in resumed.stdout
    assert Path(LOG).read_text() == "note\n"


def test_the_traceback_of_a_step_is_printed_on_request(cli: Cli) -> None:
    failed = cli("run", "broken", *APP, "--verbose", code=1)
    assert "Traceback (most recent call last)" in failed.stderr
    assert "in fail_unless_mended" in failed.stderr


def test_a_stopped_run(cli: Cli) -> None:
    stopped = cli("run", "idle", *APP, "--json", code=3)
    assert stopped.document["status"] == "stopped"
    assert stopped.document["stop_reason"] == "nothing to do"


def test_the_same_run_twice(cli: Cli) -> None:
    first = cli("run", "greet", *APP, "--id", "one", "--json").document
    second = cli("run", "greet", *APP, "--id", "one", "--json").document
    assert second == first
    assert Path(LOG).read_text() == "note\nagain\n"
    other = cli("run", "greet", *APP, "--id", "one", "-p", "name=Eve", code=1)
    assert other.stderr.startswith("error: run 'one' ")


def test_the_first_step_can_be_chosen(cli: Cli) -> None:
    cli("run", "greet", *APP, "--start-from", "again")
    assert Path(LOG).read_text() == "again\n"


def test_params_from_a_file_and_from_the_standard_input(cli: Cli) -> None:
    Path("params.json").write_text('{"name": "file"}')
    assert cli("run", "greet", *APP, "--params", "@params.json", "--json").document["params"] == {"name": "file"}
    typed = cli("run", "greet", *APP, "--params", "@-", "-p", "name=2026-01", stdin='{"name": 1, "b": 2}', code=0)
    assert 'output of again: {"for":"2026-01"' in typed.stdout


def test_a_queued_run_is_stored_for_a_worker(cli: Cli) -> None:
    stored = cli(
        "run", "greet", "--queue", "mail", "--id", "later", "--delay", "2h", "--key", "a", "--detach", "--json"
    )
    assert stored.document["status"] == "pending"
    assert (stored.document["queue"], stored.document["key"]) == ("mail", "a")
    assert cli("run", "greet", "--queue", "mail", "--detach", "--id", "plain").stdout == "plain\n"


def test_the_name_of_a_module_is_no_workflow_for_a_queue(cli: Cli) -> None:
    Path("shop_of_the_queue.py").write_text(
        "from spine_async import Step, Workflow\n"
        'carts = Workflow("carts", [Step.wait("pause", 0)])\n'
        'orders = Workflow("shop_of_the_queue", [Step.wait("pause", 0)])\n'
    )
    Path("shelf_of_the_queue.py").write_text("from shop_of_the_queue import carts\n")
    refused = cli("run", "shelf_of_the_queue", "--queue", "mail", "--detach", code=2)
    assert refused.stderr == (
        "error: shelf_of_the_queue is a module; with --queue give the name of a workflow, or --app. It has: carts\n"
    )
    assert not Path(".spine").exists()
    assert cli("run", "shop_of_the_queue", "--queue", "mail", "--detach", "--id", "named").stdout == "named\n"
    assert cli("run", "carts", "--queue", "mail", "--detach", "--id", "other").stdout == "other\n"


def test_options_of_a_queue_need_one(cli: Cli) -> None:
    assert cli("run", "greet", *APP, "--delay", "2h", code=2).stderr == "error: --delay needs --queue\n"
    refused = cli("run", "greet", *APP, "--queue", "mail", "--start-from", "again", code=2)
    assert refused.stderr.startswith("error: --start-from cannot be given with --queue")


def test_a_stored_run_is_watched(cli: Cli) -> None:
    cli("run", "large", *APP, "--id", "one")
    watched = cli("watch", "one", "--json")
    assert [each["seq"] for each in watched.lines] == list(range(1, len(watched.lines) + 1))
    assert watched.lines[-1]["event_type"] == "workflow_completed"
    rest = cli("watch", "one", "--json", "--after", "10")
    assert rest.lines == watched.lines[10:]
    assert "run one completed" in cli("watch", "one").stdout


def test_watching_a_failed_run(cli: Cli) -> None:
    cli("run", "broken", *APP, "--id", "one", code=1)
    cli("watch", "one", "--json", code=1)


def test_a_resume_needs_the_workflow(cli: Cli) -> None:
    cli("run", "broken", *APP, "--id", "one", code=1)
    assert cli("resume", "one", code=2).stderr == (
        "error: run 'one' belongs to workflow 'broken'; give its module with --app\n"
    )
    other = cli("resume", "one", "--app", "tests.cli.flows:greet", code=2)
    assert other.stderr.endswith("--app; tests.cli.flows:greet has no workflow of this name\n")


def test_a_completed_run_is_not_resumed(cli: Cli) -> None:
    cli("run", "greet", *APP, "--id", "one")
    assert "has completed" in cli("resume", "one", *APP, code=1).stderr


def test_an_application_with_a_runner(cli: Cli) -> None:
    cli("run", "greet", "--app", "tests.cli.served:runner", "--id", "one")
    assert Path("served.db").exists()
    assert not Path(".spine").exists()
    assert cli("runs", "--app", "tests.cli.served:runner", "--json").document["runs"][0]["run_id"] == "one"
    refused = cli("runs", "--app", "tests.cli.served:runner", "--database", "sqlite://", code=2)
    assert refused.stderr.endswith("has a runner with a database of its own; leave out --database\n")


def test_the_database_is_an_option(cli: Cli) -> None:
    cli("run", "greet", *APP, "--id", "one", "--database", "sqlite:///other.db")
    assert Path("other.db").exists()
    cli("show", "one", "--database", "sqlite:///other.db")


def test_the_command_that_continues_names_the_database(cli: Cli) -> None:
    cli("run", "broken", *APP, "--id", "one", "--database", "sqlite:///a folder/b.db", code=1)
    failed = cli("watch", "one", "--database", "sqlite:///a folder/b.db", code=1)
    assert failed.stderr == "continue it: spine-async resume one --database 'sqlite:///a folder/b.db'\n"


def test_no_password_is_printed() -> None:
    place = Place("postgresql://app:secret@db/app", None)
    assert place.command("watch", "one") == "spine-async watch one --database …"


def test_a_workflow_by_its_attribute_although_there_is_an_application(cli: Cli) -> None:
    assert cli("plan", "tests.cli.flows:greet", "--app", "tests.cli.served", "--json").document["workflow"] == "greet"


def test_the_application_is_a_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINE_APP", "tests.cli.flows")
    cli("run", "greet")
