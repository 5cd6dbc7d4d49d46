"""The pages of queues, schedules and workers."""

from __future__ import annotations

from starlette.responses import Response

from spine_async._model.queue import LISTED_FOR
from spine_async.dashboard.site import Visit


async def queues(visit: Visit) -> Response:
    """The queues with their limits and the numbers of their runs."""
    return visit.page(
        "queues.html", queues=await visit.runner.queues(), listed_for=2 * LISTED_FOR, live=visit.url("/live")
    )


async def schedules(visit: Visit) -> Response:
    """The schedules."""
    return visit.page("schedules.html", schedules=await visit.runner.list_schedules(), live=visit.url("/live"))


async def workers(visit: Visit) -> Response:
    """The processes that hold runs. The runs of one of them are listed on the page of runs."""
    return visit.page("workers.html", workers=await visit.runner.workers(), live=visit.url("/live"))
