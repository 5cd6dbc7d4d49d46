"""Translates what is given on the command line into the actions of the commands.

Each function returns an action, which `perform` executes. The action interprets the arguments, so that their errors
are reported like all others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

from spine_async._engine.service.run_filters import RunFilters
from spine_async._model.retention import RetentionPolicy
from spine_async._model.status import RunStatus
from spine_async.cli import execution, inspection, management, schedule_commands
from spine_async.cli.application import named_workflow
from spine_async.cli.output import Output
from spine_async.cli.perform import Action
from spine_async.cli.place import Place
from spine_async.cli.problem import CommandError
from spine_async.cli.text import parse_duration, parse_time
from spine_async.cli.values import parse_entries, parse_json, parse_params


def run_request(
    target: str,
    *,
    app: str | None,
    database: str | None,
    params: str | None,
    entries: Sequence[str],
    partition: Sequence[str],
    run_id: str | None,
    start_from: str | None,
    queue: str | None,
    queue_options: Mapping[str, object],
) -> Action:
    """`run`. The options of a queued run need a queue."""

    def action(output: Output) -> Awaitable[int]:
        if queue is None and queue_options:
            raise CommandError(f"{next(iter(queue_options))} needs --queue")
        is_by_name = app is None and queue is not None and ":" not in target
        where = execution.Target
        workflow = where.by_name(target, database) if is_by_name else where.of(target, database, app)
        delay = queue_options.get("--delay")
        options = execution.NewRunOptions(
            params=parse_params(params, entries),
            partition=parse_entries(partition) or None,
            run_id=run_id,
            start_from=start_from,
            queue=queue,
            key=cast("str | None", queue_options.get("--key")),
            priority=cast("int", queue_options.get("--priority", 0)),
            delay=parse_duration(str(delay), "--delay") if delay is not None else None,
            is_detached="--detach" in queue_options,
        )
        return execution.run(output, workflow, options)

    return action


def resume_request(
    run_id: str, *, app: str | None, database: str | None, params: str | None, entries: Sequence[str]
) -> Action:
    """`resume`."""
    return lambda output: execution.resume(output, Place.of(database, app), run_id, parse_params(params, entries))


def watch_request(run_id: str, *, app: str | None, database: str | None, after: int) -> Action:
    """`watch`."""
    return lambda output: execution.watch(output, Place.of(database, app), run_id, after)


def worker_request(
    target: str | None,
    *,
    database: str | None,
    queues: Sequence[str],
    settings: Mapping[str, object],
    health_host: str,
    health_port: int | None,
) -> Action:
    """`worker`."""
    from spine_async.cli.worker import WorkerOptions, parse_queue, work  # noqa: PLC0415 - needed by this command only

    def action(output: Output) -> Awaitable[int]:
        options = WorkerOptions(
            queues=[parse_queue(each) for each in queues],
            settings={name: value for name, value in settings.items() if value is not None},
            health_host=health_host,
            health_port=health_port,
        )
        return work(output, Place.of(database, target), options)

    return action


def runs_request(
    *,
    app: str | None,
    database: str | None,
    texts: Mapping[str, str | None],
    partition: Sequence[str],
    times: Mapping[str, tuple[str, str | None]],
    limit: int,
    cursor: str | None,
    oldest: bool,
    with_params: bool,
    count: bool,
) -> Action:
    """`runs`. `times` has the option and its value, by the name of the filter."""

    def action(output: Output) -> Awaitable[int]:
        now = datetime.now(UTC)
        filters: dict[str, object] = {name: value for name, value in texts.items() if value is not None}
        try:
            RunStatus(str(filters.get("status", RunStatus.RUNNING)))
        except ValueError as exc:
            raise CommandError(str(exc)) from None
        if partition:
            filters["partition"] = parse_entries(partition)
        filters |= {name: parse_time(text, option, now) for name, (option, text) in times.items() if text is not None}
        listing = inspection.Listing(
            filters=cast("RunFilters", filters),
            limit=limit,
            cursor=cursor,
            order="oldest" if oldest else "newest",
            with_params=with_params,
            is_count=count,
        )
        return inspection.list_runs(output, Place.of(database, app), listing)

    return action


def show_request(
    run_id: str,
    *,
    app: str | None,
    database: str | None,
    events: bool,
    outputs: bool,
    step: str | None,
    shows_all: bool,
) -> Action:
    """`show`."""
    details = inspection.Details(with_events=events, with_outputs=outputs, with_all=shows_all, step=step)
    return lambda output: inspection.show_run(output, Place.of(database, app), run_id, details)


def queues_request(*, app: str | None, database: str | None) -> Action:
    """`queues`."""
    return lambda output: inspection.list_queues(output, Place.of(database, app))


def graph_request(target: str, *, app: str | None, as_mermaid: bool) -> Action:
    """`graph`."""
    return lambda output: inspection.show_graph(output, *_definition(target, app), as_mermaid=as_mermaid)


def plan_request(target: str, *, app: str | None) -> Action:
    """`plan`."""
    return lambda output: inspection.show_plan(output, *_definition(target, app))


def _definition(target: str, app: str | None) -> tuple[Place, str | None]:
    """The place of a workflow, and its name there; None for the only one."""
    application, name = named_workflow(target, app)
    return Place.of(None, application), name


def ui_request(*, app: str | None, database: str | None, host: str, port: int, is_read_only: bool) -> Action:
    """`ui`."""

    def action(output: Output) -> Awaitable[int]:
        from spine_async.cli.dashboard_server import serve_dashboard  # noqa: PLC0415 - needs optional dependencies

        return serve_dashboard(output, Place.of(database, app), host, port, is_read_only=is_read_only)

    return action


def stop_request(
    run_ids: Sequence[str], *, app: str | None, database: str | None, reason: str | None, compensate: bool
) -> Action:
    """`stop`."""
    return lambda output: management.stop_runs(output, Place.of(database, app), run_ids, reason, compensate=compensate)


def signal_request(
    run_id: str, name: str, value: str, *, app: str | None, database: str | None, key: str | None
) -> Action:
    """`signal`."""
    return lambda output: management.send_signal(
        output, Place.of(database, app), run_id, name, parse_json(value, "the value"), key=key
    )


def delete_request(run_ids: Sequence[str], *, app: str | None, database: str | None, force: bool) -> Action:
    """`delete`."""
    return lambda output: management.delete_runs(output, Place.of(database, app), run_ids, force=force)


def prune_request(
    ages: Mapping[str, str | None], keep_last: int | None, *, app: str | None, database: str | None
) -> Action:
    """`prune`."""

    def action(output: Output) -> Awaitable[int]:
        given = {name: parse_duration(age, f"--{name}") for name, age in ages.items() if age is not None}
        is_given = bool(given) or keep_last is not None
        policy = RetentionPolicy(**given, keep_last=keep_last) if is_given else None
        return management.prune_runs(output, Place.of(database, app), policy)

    return action


def upgrade_request(database: str | None) -> Action:
    """`db upgrade`."""
    return lambda output: management.upgrade_database(output, Place.of(database, None))


def schedules_request(*, app: str | None, database: str | None) -> Action:
    """`schedules`."""
    return lambda output: schedule_commands.list_schedules(output, Place.of(database, app))


def schedule_request(verb: str, name: str, *, app: str | None, database: str | None) -> Action:
    """`schedules pause`, `resume` and `trigger`."""
    action = {
        "pause": schedule_commands.pause_schedule,
        "resume": schedule_commands.resume_schedule,
        "trigger": schedule_commands.trigger_schedule,
    }[verb]
    return lambda output: action(output, Place.of(database, app), name)
