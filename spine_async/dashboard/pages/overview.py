"""The first page: numbers of runs, what fails, what is under way."""

from __future__ import annotations

from starlette.responses import Response

from spine_async._model.status import RunStatus
from spine_async.dashboard.site import Visit

MOST = 10_000
_SHOWN = 8


async def overview(visit: Visit) -> Response:
    """The page."""
    runner = visit.runner
    counts = await runner.count_runs(limit=MOST)
    return visit.page(
        "overview.html",
        counts=[(status, counts[status], counts[status] < MOST) for status in RunStatus],
        queues=await runner.queues(),
        workers=await runner.workers(),
        failed=await runner.list_runs(status=RunStatus.FAILED, limit=_SHOWN),
        latest=await runner.list_runs(limit=_SHOWN),
        live=visit.url("/live"),
    )
