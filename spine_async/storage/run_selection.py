"""Selects runs by a filter, for stores that keep or read them as objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from spine_async._model.document import split_object
from spine_async._model.run_filter import DOCUMENTS, RunCursor, RunFilter
from spine_async._model.run_row import StoredRun


def select_runs(runs: Iterable[StoredRun], chosen: RunFilter) -> list[StoredRun]:
    """The runs that match the filter, in the order of the listing, at most `limit`."""
    found = sorted((run for run in runs if matches(run, chosen)), key=_place, reverse=not chosen.is_oldest_first)
    page = found[: chosen.limit]
    return page if chosen.with_documents else [without_documents(run) for run in page]


def matches(run: StoredRun, chosen: RunFilter) -> bool:
    """Whether the filter selects the run."""
    return (
        run.status in chosen.statuses
        and _has_values(run, chosen)
        and _is_between(run.created_at, chosen.created_from, chosen.created_until)
        and _is_between(run.completed_at, chosen.ended_from, chosen.ended_until)
        and run.run_id.startswith(chosen.run_id_prefix or "")
        and (chosen.cursor is None or _is_behind(run, chosen.cursor, is_oldest_first=chosen.is_oldest_first))
        and _has_entries(run, chosen)
    )


def _has_values(run: StoredRun, chosen: RunFilter) -> bool:
    return all(
        wanted is None or wanted == found
        for wanted, found in (
            (chosen.workflow_name, run.workflow_name),
            (chosen.queue, run.queue),
            (chosen.queue_key, run.queue_key),
            (chosen.parent_run_id, run.parent_run_id),
            (chosen.owner, run.owner),
            (chosen.stop_reason, run.stop_reason),
            (chosen.error_category, run.error_category),
            (chosen.is_leased, run.is_leased),
        )
    )


def _is_between(at: datetime | None, start: datetime | None, end: datetime | None) -> bool:
    if start is None and end is None:
        return True
    return at is not None and (start is None or start <= at) and (end is None or at < end)


def _is_behind(run: StoredRun, cursor: RunCursor, *, is_oldest_first: bool) -> bool:
    place = (cursor.created_at, cursor.key)
    return _place(run) > place if is_oldest_first else _place(run) < place


def _has_entries(run: StoredRun, chosen: RunFilter) -> bool:
    if not chosen.partition:
        return True
    entries = split_object(run.partition or "{}")
    return all(name in entries and entries[name].text == value for name, value in chosen.partition.items())


def without_documents(run: StoredRun) -> StoredRun:
    """A copy of the run whose documents are empty texts."""
    run = replace(run)
    for name in DOCUMENTS:
        setattr(run, name, "")
    return run


def _place(run: StoredRun) -> tuple[datetime, int]:
    return run.created_at, run.key
