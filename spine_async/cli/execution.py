"""The commands that execute runs, or follow them: `run`, `resume`, `watch`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import anyio

from spine_async._model.naming import check_run_id
from spine_async._model.status import RunStatus
from spine_async._model.workflow import Workflow
from spine_async.cli.application import check_is_no_module, named_workflow
from spine_async.cli.exit_code import ExitCode
from spine_async.cli.following import Followed, follow, follow_call
from spine_async.cli.output import Output
from spine_async.cli.place import Place
from spine_async.cli.problem import CommandError
from spine_async.cli.run_summary import print_summary
from spine_async.cli.run_view import view_of
from spine_async.errors import RunNotFoundError
from spine_async.runner import WorkflowRunner

_STOP_LIMIT = 10.0  # seconds
_CODES = {
    RunStatus.COMPLETED: ExitCode.COMPLETED,
    RunStatus.FAILED: ExitCode.FAILED,
    RunStatus.STOPPED: ExitCode.STOPPED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRunOptions:
    """The options of `run` for the new run.

    Attributes:
        queue: Queue that the run is put into, for a worker; None executes it here.
        is_detached: Whether the command ends when the run is stored.
    """

    params: Mapping[str, object] | None = None
    partition: Mapping[str, object] | None = None
    run_id: str | None = None
    start_from: str | None = None
    queue: str | None = None
    key: str | None = None
    priority: int = 0
    delay: timedelta | None = None
    is_detached: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """The workflow of a command.

    Attributes:
        place: Where runs are stored.
        workflow: The workflow, or its name if no application is given.
    """

    place: Place
    workflow: Workflow | str

    @classmethod
    def of(cls, name: str, database: str | None, app: str | None) -> Target:
        """Find the workflow.

        Args:
            name: `module`, or `module:attribute`, with one workflow; with `app` the name of one of its workflows.
            database: URL of the database, or None.
            app: The application, or None.

        Raises:
            CommandError: There is no such workflow.
        """
        target, workflow_name = named_workflow(name, app)
        place = Place.of(database, target)
        return cls(place, place.known_workflow(workflow_name))

    @classmethod
    def by_name(cls, name: str, database: str | None) -> Target:
        """A workflow that only workers know.

        Raises:
            CommandError: The name is that of a module.
        """
        check_is_no_module(name)
        return cls(Place.of(database, None), name)


async def run(output: Output, target: Target, options: NewRunOptions) -> int:
    """Start a run: execute it here, or put it into a queue; and show it until it has ended."""
    run_id = check_run_id(options.run_id) if options.run_id is not None else str(uuid.uuid4())
    output.needs_reader = options.queue is not None
    workflow = target.workflow
    heading = f"run {run_id}  {workflow if isinstance(workflow, str) else workflow.name}"
    if options.queue is None:  # shown before the store is opened; a queued run is shown once it is stored
        output.line(heading)
    async with target.place.open() as runner:
        if options.queue is not None:
            await _enqueue(target, runner, run_id, options)
            output.line(run_id if options.is_detached else heading)
            return await _follow_queued(output, target, runner, run_id, is_detached=options.is_detached)
        if isinstance(workflow, str):
            raise CommandError(
                f"workflow {workflow!r} can only be put into a queue; give --queue, or its module with --app"
            )

        async def execute() -> None:
            await runner.execute(
                workflow,
                params=options.params,
                partition=options.partition,
                start_from=options.start_from,
                run_id=run_id,
            )

        view = view_of(output, run_id, workflow.plan(), streams_json=False)
        followed = await follow_call(runner, run_id, view, execute)
        return await _conclude(output, target.place, runner, run_id, followed)


async def _enqueue(target: Target, runner: WorkflowRunner, run_id: str, options: NewRunOptions) -> None:
    if options.start_from is not None:
        raise CommandError("--start-from cannot be given with --queue; a queued run begins with its first step")
    await runner.enqueue(
        target.workflow,
        params=options.params,
        partition=options.partition,
        run_id=run_id,
        queue=str(options.queue),
        key=options.key,
        priority=options.priority,
        delay=options.delay,
    )


async def _follow_queued(
    output: Output, target: Target, runner: WorkflowRunner, run_id: str, *, is_detached: bool
) -> int:
    """Show a queued run until it has ended; a detached one is only printed."""
    if is_detached:
        if output.is_json:
            output.json(await runner.get_run(run_id))
        return ExitCode.COMPLETED
    workflow = target.workflow
    view = view_of(output, run_id, workflow.plan() if isinstance(workflow, Workflow) else None, streams_json=False)
    return await _conclude(output, target.place, runner, run_id, await follow(runner, run_id, view))


async def resume(output: Output, place: Place, run_id: str, params: Mapping[str, object] | None) -> int:
    """Continue a run here, and show it until it has ended."""
    output.needs_reader = False
    async with place.open() as runner:
        record = await runner.get_run(run_id)
        workflow = runner.workflows.get(record.workflow_name)
        if workflow is None:
            application = place.application
            known = f"; {application.target} has no workflow of this name" if application is not None else ""
            raise CommandError(
                f"run {run_id!r} belongs to workflow {record.workflow_name!r}; give its module with --app{known}"
            )
        view = view_of(output, run_id, workflow.plan(), streams_json=False)
        last = 0
        async for event in runner.events(run_id):
            last = event.seq
            view.catch_up(event)

        async def execute() -> None:
            await runner.resume(run_id, params_override=params)

        output.line(f"run {run_id}  {workflow.name}")
        followed = await follow_call(runner, run_id, view, execute, after=last)
        if followed.is_interrupted:
            await _stop(runner, run_id)
        return await _conclude(output, place, runner, run_id, followed)


async def _stop(runner: WorkflowRunner, run_id: str) -> None:
    """Stop an interrupted run, which would continue in the background; one that waits for its turn stays queued."""
    if (await runner.get_run(run_id)).status is not RunStatus.PENDING:
        await runner.stop(run_id, "interrupted")
        with anyio.move_on_after(_STOP_LIMIT):
            await runner.result(run_id)


async def watch(output: Output, place: Place, run_id: str, after: int) -> int:
    """Show the events of a run, wherever it is executed, until it has ended."""
    async with place.open() as runner:
        record = await runner.get_run(run_id)
        workflow = runner.workflows.get(record.workflow_name)
        view = view_of(output, run_id, workflow.plan() if workflow is not None else None, streams_json=True)
        followed = await follow(runner, run_id, view, after)
        return await _conclude(output, place, runner, run_id, followed, streams_json=True)


async def _conclude(
    output: Output,
    place: Place,
    runner: WorkflowRunner,
    run_id: str,
    followed: Followed,
    *,
    streams_json: bool = False,
) -> int:
    """Print the summary of a run that has ended, or how to continue one that has not.

    Args:
        output: Where to print.
        place: Where the run is stored.
        runner: The runner.
        run_id: The run.
        followed: How the following ended.
        streams_json: Whether JSON was printed already.
    """
    try:
        record = await runner.get_run(run_id)
    except RunNotFoundError:
        if not followed.is_interrupted:
            raise
        output.note(f"interrupted; run {run_id} was not stored")
        return ExitCode.STOPPED
    is_streamed = output.is_json and streams_json
    if record.status.is_final:
        if not is_streamed:
            await print_summary(output, runner, record)
        if record.status is not RunStatus.COMPLETED:
            output.note(f"continue it: {place.command('resume', run_id)}")
        return _CODES[record.status]
    if output.is_json and not is_streamed:
        output.json(record)
    output.note(f"the run continues: {place.command('watch', run_id)}")
    return ExitCode.INTERRUPTED
