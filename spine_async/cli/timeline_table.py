"""A timeline as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

from spine_async.cli.output import Cell, Output, dim, status_cell
from spine_async.cli.text import duration_text, shortened
from spine_async.views.timeline import TimelineRow

HEADERS = ("STEP", "STATUS", "TIME", "DETAILS")
_BAR = 24  # characters
_LONGEST_DETAILS = 100


def print_timeline(output: Output, rows: Sequence[TimelineRow]) -> None:
    """Print a timeline with a bar for each visit."""
    whole = max((row.start + row.duration for row in rows), default=0.0)
    table = [(*timeline_cells(row)[:3], dim(_bar(row, whole)), *timeline_cells(row)[3:]) for row in rows]
    output.table(("STEP", "STATUS", "TIME", "", "DETAILS"), table)


def timeline_cells(row: TimelineRow) -> tuple[Cell, ...]:
    """Path, status, duration and details of one visit."""
    shown = row.path.rpartition("/")[2] if row.depth else row.path
    entry = _entry(row.path) if row.depth else ""
    return (
        f"{'  ' * row.depth}{entry}{shown}",
        status_cell(row.status.value),
        duration_text(row.duration) if row.attempt else "",
        shortened(_details(row), _LONGEST_DETAILS),
    )


def _entry(path: str) -> str:
    """The item or branch in which the visit is, such as `[17] `."""
    scope = path.rpartition("/")[0]
    return f"[{scope.rpartition('[')[2]} " if scope.endswith("]") else ""


def _details(row: TimelineRow) -> str:
    parts = []
    if row.attempt > 1:
        parts.append(f"attempt {row.attempt}")
    if row.entries_completed or row.entries_failed:
        failed = f", {row.entries_failed} failed" if row.entries_failed else ""
        parts.append(f"{row.entries_completed} done{failed}")
    if row.hidden:
        parts.append(f"{row.hidden} not shown")
    if row.waits_for is not None:
        parts.append(f"waits for {row.waits_for}" if not row.waits_for.startswith("until") else row.waits_for)
    if row.progress is not None and row.status.is_open:
        parts.append(_progress(row))
    if row.error is not None:
        parts.append(row.error)
    return "  ".join(parts)


def _progress(row: TimelineRow) -> str:
    progress = row.progress
    if progress is None:
        return ""
    total = f" of {progress.total:g}" if progress.total is not None else ""
    return f"{progress.done:g}{total}{f' {progress.message}' if progress.message else ''}"


def _bar(row: TimelineRow, whole: float) -> str:
    """When the visit took place within the run."""
    if whole <= 0 or not row.attempt:
        return ""
    begin = min(int(row.start / whole * _BAR), _BAR - 1)
    length = max(round(row.duration / whole * _BAR), 1)
    return " " * begin + "━" * min(length, _BAR - begin)
