"""Writes events of steps before those steps end: that they have started, and how far they have come."""

from __future__ import annotations

from collections.abc import Sequence

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.progress_report import store_progress
from spine_async._engine.state.run import Run

_ANNOUNCE_AFTER = 0.5  # seconds; the event of a shorter step is written with the step's own commit


def announce_visits(runtime: Runtime, runs: Sequence[Run], now_mono: float) -> None:
    """Enqueue the waiting events of visits that have lasted for half a second, and the progress of all visits.

    The journal commits them as a group. Nothing waits for that commit. If it fails, the run's own next commit fails in
    the same way and reports it.
    """
    for run in runs:
        if run.pending.announce_visits(now_mono - _ANNOUNCE_AFTER):
            runtime.journal.enqueue(run.pending)
    if not runtime.is_ephemeral:
        for run in store_progress(runs, now_mono):
            runtime.journal.enqueue(run.pending)
