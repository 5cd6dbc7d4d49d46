"""The commands that read: `runs`, `show`, `queues`, `graph`, `plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from spine_async._engine.service.run_filters import RunFilters
from spine_async._model.history import Event, RunRecord
from spine_async.cli.exit_code import ExitCode
from spine_async.cli.output import Cell, Output, dim, status_cell
from spine_async.cli.place import Place
from spine_async.cli.problem import CommandError
from spine_async.cli.run_summary import describe, value_text
from spine_async.cli.run_view import LineView
from spine_async.cli.text import duration_text, shortened, time_text
from spine_async.cli.timeline_table import print_timeline
from spine_async.runner import WorkflowRunner
from spine_async.views.plan_tree import plan_tree
from spine_async.views.timeline import Timeline

_ENTRIES = 20  # visits inside of one step that `show` prints unless all are asked for
_RUN_HEADERS = ("RUN", "WORKFLOW", "STATUS", "CREATED", "DURATION", "QUEUE", "ERROR")
_LONGEST_ERROR = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What `runs` lists.

    Attributes:
        is_count: Whether the runs are counted by status instead.
    """

    filters: RunFilters
    limit: int = 20
    cursor: str | None = None
    order: Literal["newest", "oldest"] = "newest"
    with_params: bool = False
    is_count: bool = False


async def list_runs(output: Output, place: Place, listing: Listing) -> int:
    """List or count stored runs."""
    async with place.open() as runner:
        if listing.is_count:
            return await _count(output, runner, listing)
        try:
            records = await runner.list_runs(
                order=listing.order,
                with_params=listing.with_params,
                limit=listing.limit,
                cursor=listing.cursor,
                **listing.filters,
            )
        except ValueError as exc:
            raise CommandError(str(exc)) from None
    following = records[-1].cursor if len(records) == listing.limit else None
    if output.is_json:
        output.json({"runs": records, "next_cursor": following})
        return ExitCode.COMPLETED
    if not records:
        output.note(f"no runs are stored{' that match' if listing.filters else ''} in {place.shown}")
        return ExitCode.COMPLETED
    output.table(_RUN_HEADERS, [_run_row(each) for each in records])
    if following is not None:
        output.note(f"there may be more: --cursor {following}")
    return ExitCode.COMPLETED


async def _count(output: Output, runner: WorkflowRunner, listing: Listing) -> int:
    try:
        counts = await runner.count_runs(**listing.filters)
    except ValueError as exc:
        raise CommandError(str(exc)) from None
    if output.is_json:
        output.json({"counts": {status.value: number for status, number in counts.items()}, "limit": 10_000})
        return ExitCode.COMPLETED
    rows = [
        (status_cell(status.value), f"{number:,}" + ("+" if number >= 10_000 else ""))
        for status, number in counts.items()
    ]
    output.table(("STATUS", "RUNS"), rows)
    return ExitCode.COMPLETED


def _run_row(record: RunRecord) -> Sequence[Cell]:
    until = record.completed_at or datetime.now(UTC)
    began = record.status != "pending"
    error = f"{record.error_step or ''}: {record.error}" if record.error is not None else record.stop_reason or ""
    return (
        record.run_id,
        record.workflow_name,
        status_cell(record.status.value),
        time_text(record.created_at),
        duration_text(max((until - record.started_at).total_seconds(), 0.0)) if began else "",
        record.queue or "",
        shortened(error, _LONGEST_ERROR),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What `show` prints besides the run and its timeline.

    Attributes:
        step: A step or the path of a visit, whose context is printed; or None.
    """

    with_events: bool = False
    with_outputs: bool = False
    with_all: bool = False
    step: str | None = None


async def show_run(output: Output, place: Place, run_id: str, details: Details) -> int:
    """Print one run with its timeline."""
    async with place.open() as runner:
        record = await runner.get_run(run_id)
        workflow = runner.workflows.get(record.workflow_name)
        timeline = Timeline(workflow.plan() if workflow is not None else None)
        events: list[Event] = []
        async for event in runner.events(run_id):
            timeline.add(event)
            if details.with_events:
                events.append(event)
        context = await _context(runner, run_id, details.step) if details.step is not None else None
    shown = None if details.with_all else _ENTRIES
    rows = timeline.rows(record.completed_at or datetime.now(UTC), max_inner=shown)
    if output.is_json:
        document: dict[str, object] = {"run": record, "timeline": rows}
        document |= {"events": events} if details.with_events else {}
        output.json(document | ({"context": context} if context is not None else {}))
        return ExitCode.COMPLETED
    output.table(("", ""), [(dim("run"), record.run_id), *describe(record)])
    output.line("")
    print_timeline(output, rows)
    if details.with_outputs and record.outputs is not None:
        _print_values(output, "outputs", record.outputs)
    if context is not None:
        _print_values(output, f"context after {details.step}", context)
    if events:
        output.line("")
        view = LineView(output)
        for event in events:
            view.add(event)
    return ExitCode.COMPLETED


async def _context(runner: WorkflowRunner, run_id: str, step: str) -> Mapping[str, object]:
    checkpoint = await runner.get_checkpoint(run_id, step)
    if checkpoint is None:
        raise CommandError(f"run {run_id!r} has no finished visit of {step!r}; `spine-async show` prints its visits")
    return checkpoint.context_snapshot


def _print_values(output: Output, title: str, values: Mapping[str, object]) -> None:
    output.line("")
    output.line(dim(title))
    output.table(("", ""), [(f"  {name}", value_text(value, 2000)) for name, value in values.items()])


async def list_queues(output: Output, place: Place) -> int:
    """List the queues with the numbers of their runs."""
    async with place.open() as runner:
        records = await runner.queues()
        if not runner.keeps_queues:
            output.note(f"{runner.store_name} keeps no queues; use a database")
    if output.is_json:
        output.json({"queues": records})
        return ExitCode.COMPLETED
    headers = ("QUEUE", "WAITING", "HELD", "DELAYED", "PARKED", "OLDEST", "WORKER SEEN")
    output.table(headers, [_queue_row(each) for each in records])
    return ExitCode.COMPLETED


def _queue_row(record: Any) -> Sequence[Cell]:
    more = "" if record.is_exact else "+"
    counts = (record.waiting, record.held, record.delayed, record.parked)
    return (
        record.name or "(none)",
        *(f"{number:,}{more if number else ''}" for number in counts),
        duration_text(record.oldest_wait) if record.oldest_wait is not None else "",
        time_text(record.listed_at) if record.name is not None else "",
    )


async def show_graph(output: Output, place: Place, name: str | None, *, as_mermaid: bool) -> int:
    """Print a workflow as a tree, or as a Mermaid flowchart."""
    workflow = place.known_workflow(name)
    if output.is_json:
        output.json({"workflow": workflow.name, "mermaid": workflow.to_mermaid(), "tree": plan_tree(workflow.plan())})
        return ExitCode.COMPLETED
    output.block(workflow.to_mermaid() if as_mermaid else "\n".join(plan_tree(workflow.plan())))
    return ExitCode.COMPLETED


async def show_plan(output: Output, place: Place, name: str | None) -> int:
    """Print the steps of a workflow with all their options."""
    plan = place.known_workflow(name).plan()
    if output.is_json:
        output.json(plan.to_dict())
    else:
        output.block(str(plan))
    return ExitCode.COMPLETED
