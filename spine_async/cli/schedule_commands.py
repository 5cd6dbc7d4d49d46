"""The commands for schedules."""

from __future__ import annotations

from collections.abc import Sequence

from spine_async._model.schedule_state import ScheduleRecord
from spine_async.cli.exit_code import ExitCode
from spine_async.cli.output import Cell, Output, Styled
from spine_async.cli.place import Place
from spine_async.cli.text import duration_text, time_text

_HEADERS = ("SCHEDULE", "WORKFLOW", "WHEN", "NEXT", "LAST", "LAST RUN", "OVERLAP", "WAITING")


async def list_schedules(output: Output, place: Place) -> int:
    """List the stored schedules."""
    async with place.open() as runner:
        records = await runner.list_schedules()
    if output.is_json:
        output.json({"schedules": records})
    elif records:
        output.table(_HEADERS, [_row(each) for each in records])
    else:
        output.note(f"no schedules are stored in {place.shown}; a worker stores those that it has")
    return ExitCode.COMPLETED


async def pause_schedule(output: Output, place: Place, name: str) -> int:
    """Let a schedule start no runs."""
    async with place.open() as runner:
        await runner.pause_schedule(name)
    return _say(output, name, "is paused", {"is_paused": True})


async def resume_schedule(output: Output, place: Place, name: str) -> int:
    """Let a schedule start runs again."""
    async with place.open() as runner:
        await runner.resume_schedule(name)
    return _say(output, name, "is active", {"is_paused": False})


async def trigger_schedule(output: Output, place: Place, name: str) -> int:
    """Start a run of a schedule now."""
    async with place.open() as runner:
        handle = await runner.trigger_schedule(name)
    return _say(output, name, f"has started run {handle.run_id}", {"run_id": handle.run_id})


def _say(output: Output, name: str, what: str, document: dict[str, object]) -> int:
    if output.is_json:
        output.json({"schedule": name, **document})
    output.line(f"schedule {name} {what}")
    return ExitCode.COMPLETED


def _row(record: ScheduleRecord) -> Sequence[Cell]:
    when = f"every {duration_text(record.every)}" if record.every is not None else f"{record.cron} {record.timezone}"
    return (
        record.name,
        record.workflow_name,
        when,
        Styled("paused", "yellow") if record.is_paused else time_text(record.next_at),
        time_text(record.last_fired_at),
        record.last_run_id or "",
        record.overlap,
        str(record.waiting or ""),
    )
