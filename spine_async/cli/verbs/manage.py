"""The verbs that change stored runs: `stop`, `signal`, `delete`, `prune`, `db upgrade`."""

from __future__ import annotations

from typing import Annotated

import typer

from spine_async.cli.options import App, AsJson, Database, RunId, RunIds
from spine_async.cli.verbs.application import app

db = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Manage the database.")
app.add_typer(db, name="db")

Age = Annotated[
    str | None, typer.Option(metavar="AGE", help="Age at which runs with this status are removed, such as 30d.")
]


@app.command()
def stop(
    run_ids: RunIds,
    *,
    reason: Annotated[str | None, typer.Option("--reason", help="The reason to record.")] = None,
    compensate: Annotated[bool, typer.Option("--compensate", help="Undo the finished steps first.")] = False,
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
) -> None:
    """Stop runs, wherever they are executed."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import stop_request

    perform(stop_request(run_ids, app=app_, database=database, reason=reason, compensate=compensate), as_json=json)


@app.command()
def signal(
    run_id: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the signal.")],
    value: Annotated[
        str, typer.Argument(metavar="[JSON]", help="The value as JSON; @FILE reads a file, @- the standard input.")
    ] = "null",
    *,
    key: Annotated[
        str | None, typer.Option("--idempotency-key", metavar="KEY", help="The same key twice is one signal.")
    ] = None,
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
) -> None:
    """Send a signal to a run that waits for it now or later."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import signal_request

    perform(signal_request(run_id, name, value, app=app_, database=database, key=key), as_json=json)


@app.command()
def delete(
    run_ids: RunIds,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also delete runs that have not ended.")] = False,
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
) -> None:
    """Delete runs with their checkpoints and events."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import delete_request

    perform(delete_request(run_ids, app=app_, database=database, force=force), as_json=json)


@app.command()
def prune(
    *,
    completed: Age = None,
    failed: Age = None,
    stopped: Age = None,
    keep_last: Annotated[
        int | None,
        typer.Option("--keep-last", metavar="N", help="Number of the newest ended runs of each workflow to keep."),
    ] = None,
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
) -> None:
    """Remove ended runs by their age."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import prune_request

    ages = {"completed": completed, "failed": failed, "stopped": stopped}
    perform(prune_request(ages, keep_last, app=app_, database=database), as_json=json)


@db.command()
def upgrade(*, database: Database = None, json: AsJson = False) -> None:
    """Create the tables, or upgrade them to this version of the library."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import upgrade_request

    perform(upgrade_request(database), as_json=json)
