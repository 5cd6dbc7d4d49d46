"""Reads the finished visits of a run, and the items of its maps, for pages that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic_core import from_json

from spine_async._engine.runtime.plain_reads import last_event, last_visit
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.stored_run import load
from spine_async._engine.tasks import PeriodicYield
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import split_values
from spine_async._model.large_text import LARGE_TEXT
from spine_async._model.limits import MAX_STORED_INT
from spine_async._model.status import EventType, StepStatus
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_record import ItemState, MapItems, VisitRecord
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.ports import reads_outlines

_PAGE = 500
_ENDED = frozenset({StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.FAILED})
_ITEM_ENDS = frozenset({EventType.MAP_ITEM_COMPLETED, EventType.MAP_ITEM_FAILED})


async def visit_records(
    runtime: Runtime, run_id: str, inside: str | None, after: int, limit: int, *, with_values: bool
) -> list[VisitRecord]:
    """At most `limit` finished visits with a number above `after`.

    Raises:
        RunNotFoundError: The run is not stored.
    """
    await load(runtime, run_id)
    found: list[VisitRecord] = []
    while len(found) < limit and after < MAX_STORED_INT:
        page = await _page(runtime, run_id, inside, after, limit, with_values=with_values)
        is_large = with_values and sum(row.output_size for row in page) > LARGE_TEXT
        with CorruptionGuard(run_id):
            found += (
                await runtime.run_on_thread(_records, page, with_values) if is_large else _records(page, with_values)
            )
        if len(page) < limit:
            break
        after = page[-1].seq
    return found[:limit]


async def _page(
    runtime: Runtime, run_id: str, inside: str | None, after: int, limit: int, *, with_values: bool
) -> Sequence[VisitRow]:
    store = runtime.store
    if inside is None and not with_values and reads_outlines(store):
        return await store.visit_outlines(run_id, after, limit)
    chosen = VisitFilter(inside=inside) if inside is not None else OWN_VISITS
    return await store.visits(run_id, replace(chosen, after=after, limit=limit))


def _records(page: Sequence[VisitRow], with_values: bool) -> list[VisitRecord]:  # noqa: FBT001 - called on a thread
    return [_as_record(row, with_values=with_values) for row in page if row.status in _ENDED]


def _as_record(row: VisitRow, *, with_values: bool) -> VisitRecord:
    return VisitRecord(
        path=row.path,
        seq=row.seq,
        step_name=row.step_name,
        kind=row.step_type,
        status=row.status,
        attempts=row.attempts,
        started_at=row.started_at,
        duration=row.duration_ms / 1000,
        error=row.error,
        error_category=row.error_category,
        target=row.target,
        updates=_members(row.updates) if with_values else None,
        appended=_members(row.appends) if with_values else None,
        output=from_json(row.output) if with_values and row.output is not None else None,
        output_size=row.output_size,
    )


def _members(text: str | None) -> Mapping[str, object]:
    return split_values(text) if text is not None else {}


async def map_items(runtime: Runtime, run_id: str, path: str) -> MapItems:
    """The items of the map at `path`.

    Raises:
        RunNotFoundError: The run is not stored.
    """
    await load(runtime, run_id)
    store = runtime.store
    found = (
        await store.item_states(run_id, path) if reads_outlines(store) else await _from_events(runtime, run_id, path)
    )
    return MapItems(path, found, await _total(runtime, run_id, path, found))


async def _total(runtime: Runtime, run_id: str, path: str, states: Sequence[ItemState]) -> int | None:
    """The number of items that the map has reported; of a map that has ended, the items that it has."""
    progress = await last_event(runtime.store, run_id, EventType.STEP_PROGRESS, path)
    with CorruptionGuard(run_id):
        total = split_values(progress.metadata).get("total") if progress is not None else None
    if isinstance(total, int | float):
        return int(total)
    is_ended = await last_visit(runtime.store, run_id, path) is not None
    return states[-1].index + 1 if is_ended and states else None


async def _from_events(runtime: Runtime, run_id: str, path: str) -> list[ItemState]:
    """The items as the events of a run report them. This reads all events."""
    states: dict[int, ItemState] = {}
    pause, last = PeriodicYield(), 0
    while page := await runtime.store.events(run_id, last, _PAGE):
        with CorruptionGuard(run_id):
            for event in page:
                _apply(states, event, path)
        last = page[-1].seq
        await pause()
    return [states[index] for index in sorted(states)]


def _apply(states: dict[int, ItemState], event: EventRow, path: str) -> None:
    """Apply an event of the map at `path`, or of a step of one of its items."""
    index = _item_index(event.path, path)
    if index is None:
        return
    known = states.get(index, ItemState(index, has_ended=False, duration=0.0, attempts=0))
    metadata = split_values(event.metadata)
    if event.event_type in _ITEM_ENDS and event.path == f"{path}[{index}]":
        error = metadata.get("error")
        states[index] = ItemState(
            index,
            has_ended=True,
            duration=known.duration,
            attempts=known.attempts,
            error=str(error) if error is not None else None,
            error_category=str(metadata["category"]) if error is not None else None,
        )
    elif event.event_type == EventType.STEP_COMPLETED and (event.path or "").rpartition("/")[0] == f"{path}[{index}]":
        attempts = max(known.attempts, int(str(metadata["attempts"])))
        duration = known.duration + float(str(metadata["duration_ms"])) / 1000
        states[index] = ItemState(index, has_ended=False, duration=duration, attempts=attempts)


def _item_index(event_path: str | None, path: str) -> int | None:
    if event_path is None or not event_path.startswith(f"{path}["):
        return None
    index = event_path[len(path) + 1 :].partition("]")[0]
    return int(index) if index.isdecimal() else None  # else the name of a branch
