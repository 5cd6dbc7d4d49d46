"""The filters of `list_runs` and `count_runs` as users give them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TypeAlias, TypedDict

from spine_async._engine.step.param_documents import mapping_documents
from spine_async._model.run_filter import RunFilter
from spine_async._model.status import RunStatus
from spine_async._model.time_option import in_utc
from spine_async.errors import DefinitionError

StatusName: TypeAlias = Literal["pending", "running", "waiting", "completed", "failed", "stopped"]


class RunFilters(TypedDict, total=False):
    """Which runs `list_runs` returns and `count_runs` counts: those that match all filters. None does not filter.

    Attributes:
        workflow_name: Name of the workflow.
        status: Status of the run.
        queue: Queue that the run was put into.
        key: Key of the run within its queue.
        partition: Entries that the partition of the run has, for instance `{"symbol": "IBM"}`. It may have others too.
        parent_run_id: Id of the run whose step started this run.
        owner: Process that executes the run, as in `WorkerRecord.owner`.
        stop_reason: Reason for which the run was stopped.
        error_category: Category of the error with which the run failed.
        created_after: Aware datetime; the run was created then or later.
        created_before: Aware datetime; the run was created earlier.
        ended_after: Aware datetime; the run ended then or later.
        ended_before: Aware datetime; the run ended earlier.
        run_id_prefix: Text with which the id of the run begins.
    """

    workflow_name: str | None
    status: RunStatus | StatusName | None
    queue: str | None
    key: str | None
    partition: Mapping[str, object] | None
    parent_run_id: str | None
    owner: str | None
    stop_reason: str | None
    error_category: str | None
    created_after: datetime | None
    created_before: datetime | None
    ended_after: datetime | None
    ended_before: datetime | None
    run_id_prefix: str | None


def as_run_filter(filters: RunFilters, max_value_bytes: int) -> RunFilter:
    """The filter of a store.

    Raises:
        TypeError: There is no filter with one of the names.
        DefinitionError: A filter has a wrong type, contains characters that no store has, or a time has no time zone.
        ValueError: The status does not exist.
        SerializationError: A value of the partition has no JSON form.
    """
    given: dict[str, object] = {name: value for name, value in filters.items() if value is not None}
    unknown = given.keys() - RunFilters.__annotations__.keys()
    if unknown:
        names = ", ".join(RunFilters.__annotations__)
        raise TypeError(f"there is no filter {min(unknown)!r}; the filters are {names}")
    partition = mapping_documents("partition", given.get("partition", {}), max_value_bytes)
    status = given.get("status")
    return RunFilter(
        workflow_name=_text(given, "workflow_name"),
        status=RunStatus(str(status)) if status is not None else None,
        queue=_text(given, "queue"),
        queue_key=_text(given, "key"),
        partition={name: document.text for name, document in partition.items()},
        parent_run_id=_text(given, "parent_run_id"),
        owner=_text(given, "owner"),
        stop_reason=_text(given, "stop_reason"),
        error_category=_text(given, "error_category"),
        created_from=_time(given, "created_after"),
        created_until=_time(given, "created_before"),
        ended_from=_time(given, "ended_after"),
        ended_until=_time(given, "ended_before"),
        run_id_prefix=_text(given, "run_id_prefix") or None,
    )


def _text(given: Mapping[str, object], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise DefinitionError(f"{name} is of type {type(value).__name__}; it must be a string")
    if name == "stop_reason":  # stored as text that every store has
        return value
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise DefinitionError(f"{name} contains a NUL character or a lone surrogate, which no store has; remove it")
    return value


def _time(given: Mapping[str, object], name: str) -> datetime | None:
    value = given.get(name)
    if value is None:
        return None
    try:
        return in_utc(value, name)  # type: ignore[arg-type] # it checks the type
    except ValueError as exc:
        raise DefinitionError(str(exc)) from None
