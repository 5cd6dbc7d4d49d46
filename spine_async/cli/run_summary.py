"""The summary of a run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic_core import to_json

from spine_async._model.history import RunRecord
from spine_async.cli.output import Cell, Output, dim, status_cell
from spine_async.cli.text import duration_text, shortened, time_text
from spine_async.cli.timeline_table import print_timeline
from spine_async.runner import WorkflowRunner
from spine_async.views.timeline import Timeline

_LONGEST_VALUE = 500


async def print_summary(output: Output, runner: WorkflowRunner, record: RunRecord) -> None:
    """Print how a run ended: on a terminal with its timeline."""
    if output.is_json:
        output.json(record)
        return
    if output.is_terminal:
        workflow = runner.workflows.get(record.workflow_name)
        timeline = Timeline(workflow.plan() if workflow is not None else None)
        async for event in runner.events(record.run_id):
            timeline.add(event)
        print_timeline(output, timeline.rows(datetime.now(UTC), max_inner=20))
        output.line("")
    ended = record.completed_at or record.updated_at
    took = duration_text((ended - record.started_at).total_seconds())
    output.line(f"run {record.run_id} ", status_cell(record.status.value), f" after {took}{_reason(record)}")
    if record.outputs:
        name = list(record.outputs)[-1]
        output.line(dim(f"output of {name}: "), value_text(record.outputs[name]))


def value_text(value: object, width: int = _LONGEST_VALUE) -> str:
    """A value as JSON on one line, shortened."""
    return shortened(to_json(value, fallback=str).decode("utf-8", "backslashreplace"), width)


def describe(record: RunRecord) -> list[tuple[Cell, Cell]]:
    """The fields of a run that have a value, with their names."""
    ended = record.completed_at
    until = ended or datetime.now(UTC)
    fields: list[tuple[str, Cell | None]] = [
        ("workflow", f"{record.workflow_name} (version {record.workflow_version})"),
        ("status", status_cell(record.status.value)),
        (
            "error",
            None
            if record.error is None
            else f"{record.error_step or ''} {record.error_category or ''}: {record.error}",
        ),
        ("stop reason", record.stop_reason),
        ("created", time_text(record.created_at)),
        ("ended", time_text(ended) or None),
        ("duration", duration_text(max((until - record.started_at).total_seconds(), 0.0))),
        ("due", time_text(record.due_at) or None),
        ("queue", record.queue),
        ("key", record.key),
        ("priority", str(record.priority) if record.priority else None),
        ("parent", record.parent_run_id),
        ("forked from", record.forked_from),
        ("params", _mapping_text(record.params)),
        ("partition", _mapping_text(record.partition)),
    ]
    return [(dim(name), value) for name, value in fields if value is not None]


def _mapping_text(values: Mapping[str, object] | None) -> str | None:
    return value_text(dict(values)) if values else None


def _reason(record: RunRecord) -> str:
    if record.error is not None:
        at = f" at {record.error_step}" if record.error_step else ""
        category = f" ({record.error_category})" if record.error_category else ""
        return f"{at}{category}: {shortened(record.error, _LONGEST_VALUE)}"
    return f": {record.stop_reason}" if record.stop_reason else ""
