"""The verbs that execute runs: `run`, `resume`, `watch`, `worker`."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from spine_async.cli.options import App, AsJson, Database, ParamEntries, ParamsJson, RunId, Verbose
from spine_async.cli.verbs.application import app


@app.command()
def run(
    target: Annotated[
        str,
        typer.Argument(metavar="WORKFLOW", help="MODULE[:ATTRIBUTE]; with --app or --queue the name of a workflow."),
    ],
    *,
    params: ParamsJson = None,
    param: ParamEntries = None,
    partition: Annotated[
        list[str] | None, typer.Option("--partition", metavar="NAME=VALUE", help="One entry of the partition.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--id", metavar="RUN_ID", help="Id of the run; a stored run with this id is joined.")
    ] = None,
    start_from: Annotated[str | None, typer.Option("--start-from", metavar="STEP", help="First step.")] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="NAME", help="Put the run into this queue, for a worker.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Key within the queue.")] = None,
    priority: Annotated[int, typer.Option("--priority", help="Runs with a lower number begin first.")] = 0,
    delay: Annotated[
        str | None, typer.Option("--delay", metavar="DURATION", help="How long the run waits first, such as 15m.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the id of a queued run, and do not wait for its end.")
    ] = False,
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Execute a workflow here, or leave it to a worker.

    The run is shown until it has ended. Ctrl-C stops a run that is executed here.
    """
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import run_request

    given = {"--key": key, "--delay": delay, "--priority": priority or None, "--detach": detach or None}
    perform(
        run_request(
            target,
            app=app_,
            database=database,
            params=params,
            entries=param or (),
            partition=partition or (),
            run_id=run_id,
            start_from=start_from,
            queue=queue,
            queue_options={name: value for name, value in given.items() if value is not None},
        ),
        as_json=json,
        shows_tracebacks=verbose,
        hides_failures=not verbose,
    )


@app.command()
def resume(
    run_id: RunId,
    *,
    params: ParamsJson = None,
    param: ParamEntries = None,
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Continue a run after its last finished step.

    It is executed here, and shown until it has ended. Ctrl-C stops it.
    """
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import resume_request

    perform(
        resume_request(run_id, app=app_, database=database, params=params, entries=param or ()),
        as_json=json,
        shows_tracebacks=verbose,
        hides_failures=not verbose,
    )


@app.command()
def watch(
    run_id: RunId,
    *,
    after: Annotated[int, typer.Option("--after", metavar="SEQ", help="Only events with a greater number.")] = 0,
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
) -> None:
    """Follow a run that any process executes.

    It is shown until it has ended. --json prints one line for each event.
    """
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import watch_request

    perform(watch_request(run_id, app=app_, database=database, after=after), as_json=json)


@app.command()
def worker(
    target: Annotated[
        str | None, typer.Argument(metavar="MODULE[:ATTRIBUTE]", help="Module of the workflows, such as myapp.flows.")
    ] = None,
    *,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            "-q",
            metavar="NAME[:LIMITS]",
            help="A queue besides `default`, such as mail or mail:concurrency=20,per-process=5,per-key=1,rate=100/60.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", help="Runs that are executed at once; 100 by default.")
    ] = None,
    drain_timeout: Annotated[
        float | None,
        typer.Option("--drain-timeout", help="Seconds that running steps have after SIGTERM; 10 by default."),
    ] = None,
    health_port: Annotated[
        int | None, typer.Option("--health-port", min=0, max=65535, help="Port of /healthz and /readyz; 0 chooses one.")
    ] = None,
    health_host: Annotated[str, typer.Option("--health-host", help="Address of the health port.")] = "127.0.0.1",
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
    app_: App = None,
    database: Database = None,
    json: AsJson = False,
) -> None:
    """Execute due runs until SIGTERM or Ctrl-C.

    The first signal lets running steps end, the second one cancels them. --json prints the log as JSON lines.
    """
    from spine_async.cli.perform import perform
    from spine_async.cli.requests import worker_request

    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise typer.BadParameter("give debug, info, warning or error", param_hint="--log-level")
    perform(
        worker_request(
            target or app_,
            database=database,
            queues=queue or (),
            settings={"worker_concurrency": concurrency, "drain_timeout": drain_timeout},
            health_host=health_host,
            health_port=health_port,
        ),
        as_json=json,
        logs=level,
        shows_tracebacks=True,
    )
