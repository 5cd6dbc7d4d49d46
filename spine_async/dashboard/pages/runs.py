"""The list of runs, with filters, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, cast

from starlette.responses import Response

from spine_async._engine.service.run_filters import RunFilters
from spine_async._model.status import RunStatus
from spine_async.dashboard.forms import FormError, object_field
from spine_async.dashboard.site import Visit

PAGE = 50
_TEXTS = {
    "workflow": "workflow_name",
    "status": "status",
    "queue": "queue",
    "key": "key",
    "owner": "owner",
    "parent": "parent_run_id",
    "category": "error_category",
    "reason": "stop_reason",
    "prefix": "run_id_prefix",
}
_TIMES = {
    "since": "created_after",
    "until": "created_before",
    "ended_since": "ended_after",
    "ended_until": "ended_before",
}
RUN_FILTERS = {**_TEXTS, **_TIMES, "partition": "partition"}
"""The filters of `RunFilters` by their names in addresses."""

FILTERS = tuple(RUN_FILTERS)


async def runs(visit: Visit) -> Response:
    """The page. `order` is `oldest` or empty, `cursor` continues a listing."""
    given = {name: visit.query(name) for name in FILTERS}
    order: Literal["newest", "oldest"] = "oldest" if visit.query("order") == "oldest" else "newest"
    cursor = visit.query("cursor")
    found = await visit.runner.list_runs(order=order, limit=PAGE + 1, cursor=cursor, **_filters(visit, given))
    kept = {name: value for name, value in given.items() if value is not None}
    kept |= {"order": "oldest"} if order == "oldest" else {}
    return visit.page(
        "runs.html",
        runs=found[:PAGE],
        filters=given,
        kept=kept,
        order=order,
        cursor=cursor,
        next_cursor=found[PAGE - 1].cursor if len(found) > PAGE else None,
        statuses=list(RunStatus),
        workflows=sorted(visit.runner.workflows),
        live=visit.url("/live") if cursor is None else None,
    )


def _filters(visit: Visit, given: Mapping[str, str | None]) -> RunFilters:
    """The filters of the listing.

    Raises:
        FormError: A value cannot be used, or the visitor may not see what it compares.
    """
    texts = {name: value for name, value in given.items() if value is not None}
    if "partition" in texts and not visit.permission.sees_values:
        raise FormError("partitions are hidden from readers, so they cannot be a filter")
    filters: dict[str, object] = {_TEXTS[name]: value for name, value in texts.items() if name in _TEXTS}
    filters |= {_TIMES[name]: _time(name, value) for name, value in texts.items() if name in _TIMES}
    filters["partition"] = object_field(texts, "partition")
    return cast("RunFilters", filters)


def _time(name: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise FormError(f"{name} is {text!r:.40}; give a time in UTC, such as 2026-01-31T09:30") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
