"""Chooses runs of a file store for a listing."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from spine_async._model.record import RunFilter, StoredRun
from spine_async.errors import CorruptRecordError, StoreUnavailableError
from spine_async.storage.file.folder import LOG
from spine_async.storage.file.index import Entry
from spine_async.storage.file.lock import locked
from spine_async.storage.memory import matches

_BLOCK = 1 << 16  # bytes

_log = logging.getLogger("spine_async")


def select(entries: Mapping[str, Entry], chosen: RunFilter, load: Callable[[str], StoredRun | None]) -> list[StoredRun]:
    """The runs that match the filter, newest first.

    Args:
        entries: The index.
        chosen: The filter.
        load: Reads a run from its folder.

    Raises:
        CorruptRecordError: A run cannot be read, unless the filter skips such runs.
    """
    newest_first = sorted(entries.items(), key=_age, reverse=True)
    if chosen.before is not None:
        last = entries.get(chosen.before)
        newest_first = [each for each in newest_first if last is not None and _age(each) < _age((chosen.before, last))]
    found: list[StoredRun] = []
    for run_id, entry in newest_first:
        if len(found) >= chosen.limit:
            break
        if entry.ended is not None and not matches(entry.ended, chosen):
            continue
        run = _load(run_id, chosen, load)
        if run is not None and matches(run, chosen):
            found.append(run)
    return found


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


def _age(item: tuple[str, Entry]) -> tuple[object, int]:
    return item[1].created_at, item[1].number


def _load(run_id: str, chosen: RunFilter, load: Callable[[str], StoredRun | None]) -> StoredRun | None:
    try:
        return load(run_id)
    except CorruptRecordError as exc:
        if not chosen.skips_unreadable:
            raise
        _log.warning("%s; the listing leaves it out", exc)
        return None
