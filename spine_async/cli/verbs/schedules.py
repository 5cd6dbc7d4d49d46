"""The verb `schedules`: lists, pauses, resumes and triggers schedules."""

from __future__ import annotations

from typing import Annotated

import typer

from spine_async.cli.options import App, AsJson, Database
from spine_async.cli.verbs.application import app

schedules = typer.Typer(rich_markup_mode=None, invoke_without_command=True, help="List and manage schedules.")
app.add_typer(schedules, name="schedules")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]


@schedules.callback()
def list_(context: typer.Context, *, app_: App = None, database: Database = None, json: AsJson = False) -> None:
    """List schedules, or manage one of them."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import schedules_request

    if context.invoked_subcommand is None:
        perform(schedules_request(app=app_, database=database), as_json=json)


@schedules.command()
def pause(name: Name, *, app_: App = None, database: Database = None, json: AsJson = False) -> None:
    """Pause a schedule, so that it starts no runs."""
    _change("pause", name, app_, database, json=json)


@schedules.command()
def resume(name: Name, *, app_: App = None, database: Database = None, json: AsJson = False) -> None:
    """Resume a paused schedule."""
    _change("resume", name, app_, database, json=json)


@schedules.command()
def trigger(name: Name, *, app_: App = None, database: Database = None, json: AsJson = False) -> None:
    """Start a run of a schedule now."""
    _change("trigger", name, app_, database, json=json)


def _change(verb: str, name: str, app_: str | None, database: str | None, *, json: bool) -> None:
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import schedule_request

    perform(schedule_request(verb, name, app=app_, database=database), as_json=json)
