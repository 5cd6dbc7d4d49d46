"""The list of runs, with filters, page by page."""

from __future__ import annotations

from typing import Literal

from starlette.responses import Response

from spine_async._engine.service.run_filters import RunFilters
from spine_async._model.status import RunStatus
from spine_async.dashboard.forms import FormError
from spine_async.dashboard.site import Visit

PAGE = 50
FILTERS = ("workflow", "status", "queue", "key", "owner", "parent", "category", "prefix")
_NAMES = {
    "workflow": "workflow_name",
    "owner": "owner",
    "parent": "parent_run_id",
    "category": "error_category",
    "prefix": "run_id_prefix",
}


async def runs(visit: Visit) -> Response:
    """The page. `order` is `oldest` or empty, `cursor` continues a listing."""
    given = {name: visit.query(name) for name in FILTERS}
    filters: RunFilters = {}
    for name, value in given.items():
        if value is not None:
            filters[_NAMES.get(name, name)] = value  # type: ignore[literal-required] # the keys of RunFilters
    if given["status"] is not None and given["status"] not in set(RunStatus):
        raise FormError(f"there is no status {given['status']!r:.40}; the statuses are {', '.join(RunStatus)}")
    order: Literal["newest", "oldest"] = "oldest" if visit.query("order") == "oldest" else "newest"
    cursor = visit.query("cursor")
    found = await visit.runner.list_runs(order=order, limit=PAGE + 1, cursor=cursor, **filters)
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
