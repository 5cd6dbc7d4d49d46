"""The verbs that read: `runs`, `show`, `queues`, `graph`, `plan`, `ui`."""

from __future__ import annotations

from typing import Annotated

import typer

from spine_async.cli.options import App, AsJson, Database, RunId
from spine_async.cli.verbs.application import app

WorkflowTarget = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="MODULE[:ATTRIBUTE], or with --app the name of a workflow.")
]


@app.command()
def runs(
    *,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Only runs of this workflow.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option("--status", help="pending, running, waiting, completed, failed or stopped."),
    ] = None,
    queue: Annotated[str | None, typer.Option("--queue", metavar="NAME", help="Only runs of this queue.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only runs with this key.")] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Only ids that begin with this text.")] = None,
    parent: Annotated[str | None, typer.Option("--parent", metavar="RUN_ID", help="Only children of this run.")] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="PROCESS", help="Only runs that this process executes.")
    ] = None,
    category: Annotated[
        str | None,
        typer.Option("--error-category", metavar="CATEGORY", help="Only runs that failed with this category."),
    ] = None,
    stop_reason: Annotated[str | None, typer.Option("--stop-reason", help="Only runs stopped for this reason.")] = None,
    partition: Annotated[
        list[str] | None, typer.Option("--partition", metavar="NAME=VALUE", help="Only runs with this entry.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Created then or later; a time, or a duration such as 2h."),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Created earlier.")] = None,
    ended_since: Annotated[
        str | None, typer.Option("--ended-since", metavar="TIME", help="Ended then or later.")
    ] = None,
    ended_until: Annotated[str | None, typer.Option("--ended-until", metavar="TIME", help="Ended earlier.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of runs.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Continue an earlier listing.")] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest runs first.")] = False,
    with_params: Annotated[bool, typer.Option("--with-params", help="Read the params too, for --json.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Count the runs by status.")] = False,
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
) -> None:
    """List stored runs, the newest first."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import runs_request

    perform(
        runs_request(
            app=app_,
            database=database,
            texts={
                "workflow_name": workflow,
                "status": status,
                "queue": queue,
                "key": key,
                "run_id_prefix": prefix,
                "parent_run_id": parent,
                "owner": owner,
                "error_category": category,
                "stop_reason": stop_reason,
            },
            partition=partition or (),
            times={
                "created_after": ("--since", since),
                "created_before": ("--until", until),
                "ended_after": ("--ended-since", ended_since),
                "ended_before": ("--ended-until", ended_until),
            },
            limit=limit,
            cursor=cursor,
            oldest=oldest,
            with_params=with_params,
            count=count,
        ),
        as_json=json,
    )


@app.command()
def show(
    run_id: RunId,
    *,
    events: Annotated[bool, typer.Option("--events", help="Print the events too.")] = False,
    outputs: Annotated[bool, typer.Option("--outputs", help="Print the outputs of a completed run.")] = False,
    step: Annotated[
        str | None, typer.Option("--step", metavar="PATH", help="Print the context after this step or visit.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Print all visits of large maps.")] = False,
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
) -> None:
    """Show one run with its timeline."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import show_request

    perform(
        show_request(run_id, app=app_, database=database, events=events, outputs=outputs, step=step, shows_all=all_),
        as_json=json,
    )


@app.command()
def queues(*, app_: App = None, database: Database = None, json: AsJson = False) -> None:
    """List queues with the numbers of their runs."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import queues_request

    perform(queues_request(app=app_, database=database), as_json=json)


@app.command()
def graph(
    target: WorkflowTarget,
    *,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart instead of a tree.")] = False,
    app_: App = None,
    json: AsJson = False,
) -> None:
    """Print the steps of a workflow as a tree, or as a flowchart."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import graph_request

    perform(graph_request(target, app=app_, as_mermaid=mermaid), as_json=json)


@app.command()
def plan(target: WorkflowTarget, *, app_: App = None, json: AsJson = False) -> None:
    """Print the steps of a workflow with their options."""
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import plan_request

    perform(plan_request(target, app=app_), as_json=json)


@app.command()
def ui(
    *,
    host: Annotated[str, typer.Option("--host", help="Address of the server.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the server.")] = 8420,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse actions and hide values.")] = False,
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
) -> None:
    """Serve the dashboard on this machine.

    With --app it also draws the graphs of workflows, and can resume and fork their runs.
    """
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import ui_request

    perform(ui_request(app=app_, database=database, host=host, port=port, is_read_only=read_only), as_json=json)
