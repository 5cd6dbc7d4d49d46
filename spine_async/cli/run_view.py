"""What a command shows of a run while it is under way: lines of its events, a live picture, or JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from spine_async._model.history import Event
from spine_async._model.plan import Plan
from spine_async.cli.output import Cell, Output, dim, rich_table
from spine_async.cli.text import duration_text, shortened
from spine_async.cli.timeline_table import HEADERS, timeline_cells
from spine_async.views.timeline import Timeline

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_REDRAW_EVERY = 0.1  # seconds
_ENTRIES = 6  # visits inside of one step that the live picture shows
_SHOWN_METADATA = ("until", "signal", "child_run_id", "reason", "message", "error", "data")
_FRAME = 4  # lines of the terminal that the picture leaves free


class RunView(Protocol):
    """Shows a run. It is entered before the first event, and left before the summary is printed."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def catch_up(self, event: Event) -> None:
        """Take an event that was stored before the command began."""
        ...

    def add(self, event: Event) -> None:
        """Show the next event."""
        ...

    def tick(self) -> None:
        """Time has passed; called a few times per second."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class _View:
    """What the views share: by itself it shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def catch_up(self, event: Event) -> None:
        return None

    def add(self, event: Event) -> None:
        return None

    def tick(self) -> None:
        return None

    def close(self) -> None:
        return None


class JsonView(_View):
    """One line of JSON for each event."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def add(self, event: Event) -> None:
        self._output.json(event)


class LineView(_View):
    """One line for each event."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def add(self, event: Event) -> None:
        at = event.timestamp.astimezone(UTC).strftime("%H:%M:%S")
        what = [event.event_type, event.path or "", _details(event)]
        self._output.line(dim(at), "  ", "  ".join(each for each in what if each))


class LiveView(_View):
    """The timeline of the run, drawn anew while it changes."""

    def __init__(self, output: Output, run_id: str, plan: Plan | None) -> None:
        self._output = output
        self._run_id = run_id
        self._timeline = Timeline(plan)
        self._drawn_mono = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live  # noqa: PLC0415 - needed on a terminal only

        self._live = Live(console=self._output.console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._live.start()
        return self

    def catch_up(self, event: Event) -> None:
        self._timeline.add(event)

    def add(self, event: Event) -> None:
        self._timeline.add(event)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()

    def tick(self) -> None:
        """Draw the timeline, unless it has just been drawn."""
        now = time.monotonic()
        if self._live is not None and now - self._drawn_mono >= _REDRAW_EVERY:
            self._drawn_mono = now
            self._live.update(self._picture(self._live.console.height), refresh=True)

    def _picture(self, height: int) -> RenderableType:
        rows = self._timeline.rows(datetime.now(UTC), max_inner=_ENTRIES)
        hidden = max(len(rows) - max(height - _FRAME, 1), 0)
        lines: list[tuple[Cell, ...]] = [timeline_cells(row) for row in rows[hidden:]]
        if hidden:
            lines.insert(0, (dim(f"… {hidden} earlier visits"), "", "", ""))
        return rich_table((f"run {shortened(self._run_id, 60)}", *HEADERS[1:]), lines, wraps=False)


def view_of(output: Output, run_id: str, plan: Plan | None, *, streams_json: bool) -> RunView:
    """The view for an output.

    Args:
        output: Where the command prints.
        run_id: The run.
        plan: Plan of its workflow, if it is known.
        streams_json: Whether events are printed as JSON lines; else JSON has only the summary.
    """
    if output.is_json:
        return JsonView(output) if streams_json else _View()
    is_live = output.is_terminal
    return LiveView(output, run_id, plan) if is_live else LineView(output)


def _details(event: Event) -> str:
    """The metadata that a person wants to see, as a short text."""
    metadata: Mapping[str, object] = event.metadata
    parts = []
    duration = metadata.get("duration_ms")
    if isinstance(duration, int | float):
        parts.append(duration_text(duration / 1000))
    if metadata.get("done") is not None:
        parts.append(f"{metadata['done']} of {metadata['total']}" if metadata.get("total") else f"{metadata['done']}")
    parts += [str(metadata[name]) for name in _SHOWN_METADATA if metadata.get(name) is not None]
    return shortened("  ".join(parts), 200)
