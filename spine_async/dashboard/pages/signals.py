"""The runs that wait for a signal, page by page, each with a form to send it."""

from __future__ import annotations

from starlette.responses import Response

from spine_async.dashboard.site import Visit

PAGE = 50


async def signals(visit: Visit) -> Response:
    """The page."""
    cursor = visit.query("cursor")
    found = await visit.runner.signal_waits(limit=PAGE, cursor=cursor)
    return visit.page(
        "signals.html", waits=found.waits, next_cursor=found.cursor, cursor=cursor, live=visit.url("/live")
    )
