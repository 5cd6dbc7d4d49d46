"""Chooses runs of a file store for a listing."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import StoredRun
from spine_async._model.status import RunStatus
from spine_async.errors import CorruptRecordError, StoreUnavailableError
from spine_async.storage.file.folder import LOG
from spine_async.storage.file.index import Entry
from spine_async.storage.file.lock import locked
from spine_async.storage.run_selection import matches, select_runs
from spine_async.storage.unreadable import report_unreadable

_BLOCK = 1 << 16  # bytes


Load: TypeAlias = Callable[[str], StoredRun | None]
"""Reads a run from its folder; None if it is not stored."""


def select(entries: Mapping[str, Entry], chosen: RunFilter, load: Load) -> list[StoredRun]:
    """The runs that match the filter, in the order of the listing.

    Args:
        entries: The index.
        chosen: The filter.
        load: Reads a run whose folder must be looked into.

    Raises:
        CorruptRecordError: A run cannot be read, unless the filter skips such runs.
    """
    found: list[StoredRun] = []
    for run in _matching(entries, chosen, load):
        if len(found) >= chosen.limit and run.created_at != found[-1].created_at:
            break
        found.append(run)
    page = select_runs(found, chosen)
    if not chosen.with_documents:
        return page
    whole = (_load(run.run_id, chosen, load) if _lacks_documents(entries, run) else run for run in page)
    return [run for run in whole if run is not None]


def count(entries: Mapping[str, Entry], chosen: RunFilter, load: Load) -> dict[RunStatus, int]:
    """How many runs match the filter, by status, at most `limit` of each."""
    counts = Counter(run.status for run in _matching(entries, chosen, load))
    return {status: min(number, chosen.limit) for status, number in counts.items()}


def names(entries: Mapping[str, Entry], chosen: RunFilter, load: Load) -> list[str]:
    """The names of the workflows of the runs that match."""
    return sorted({run.workflow_name for run in _matching(entries, chosen, load)})


def _matching(entries: Mapping[str, Entry], chosen: RunFilter, load: Load) -> Iterator[StoredRun]:
    """The runs that match, ordered by the time of their creation; those that have ended lack their documents."""
    for run_id, entry in sorted(entries.items(), key=_created_at, reverse=not chosen.is_oldest_first):
        run = entry.ended if entry.ended is not None else _load(run_id, chosen, load)
        if run is not None and matches(run, chosen):
            yield run


def _lacks_documents(entries: Mapping[str, Entry], run: StoredRun) -> bool:
    return entries[run.run_id].ended is run


def _created_at(item: tuple[str, Entry]) -> datetime:
    return item[1].created_at


def run_ids_on_disk(base: Path, timeout: float) -> Iterator[str]:
    """The ids of the runs that have folders; logs that cannot be read are left out."""
    for file in base.glob(f"[0-9a-f]*/{LOG}"):
        with suppress(OSError, StoreUnavailableError, ValueError, LookupError, TypeError):
            with locked(file, is_created=False, timeout=timeout) as descriptor:
                line = _first_line(descriptor) if descriptor is not None else b""
            yield str(json.loads(line)["run"]["run_id"])


def _first_line(descriptor: int) -> bytes:
    data = b""
    while b"\n" not in data and (part := os.pread(descriptor, _BLOCK, len(data))):
        data += part
    return data.partition(b"\n")[0]


def _load(run_id: str, chosen: RunFilter, load: Load) -> StoredRun | None:
    try:
        return load(run_id)
    except CorruptRecordError as exc:
        if not chosen.skips_unreadable:
            raise
        report_unreadable(exc)
        return None
