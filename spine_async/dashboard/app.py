"""The dashboard as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from spine_async.dashboard import actions
from spine_async.dashboard.access import Access, Gatekeeper
from spine_async.dashboard.assets import send_asset
from spine_async.dashboard.failures import failure_page
from spine_async.dashboard.live import PulseEndpoint, run_stream
from spine_async.dashboard.pages import run as run_pages
from spine_async.dashboard.pages.overview import overview
from spine_async.dashboard.pages.queues import queues, schedules, workers
from spine_async.dashboard.pages.runs import runs
from spine_async.dashboard.pages.signals import signals
from spine_async.dashboard.security import SecureHeaders
from spine_async.dashboard.site import Site, Visit
from spine_async.errors import DefinitionError
from spine_async.runner import WorkflowRunner

Page: TypeAlias = Callable[[Visit], Awaitable[Response | ASGIApp]]


def dashboard(
    runner: WorkflowRunner, *, access: Access, readers_see_values: bool = False, title: str = "spine_async"
) -> Starlette:
    """An ASGI application with pages that show the runs of a store, and forms that act on them.

    Mount it in an application that enters the runner: `app.mount("/spine", dashboard(runner, access=…))`. Served by
    itself, for instance by `uvicorn`, its own lifespan enters the runner.

    Args:
        runner: The runner. A graph is shown for the workflows that it knows, and only their runs can be resumed and
            forked. It may be one with `work=False`.
        access: Function that gets the request (`starlette.requests.Request`) and returns `"all"`, `"read"` or None. It
            may be async. `"all"` permits every action and shows all values. `"read"` permits looking, without values.
            None refuses the request. There is no default, so nothing is open by mistake.
        readers_see_values: Whether `"read"` also shows params, outputs, errors and the data of events.
        title: Name of the application, shown on each page.

    Raises:
        DefinitionError: An argument has a wrong type.

    Example:
        >>> from spine_async import WorkflowRunner
        >>> from spine_async.dashboard import dashboard
        >>> app = dashboard(WorkflowRunner(work=False), access=lambda request: "read")
    """
    if not isinstance(runner, WorkflowRunner):
        raise DefinitionError(f"runner is of type {type(runner).__name__}; it must be a WorkflowRunner")
    site = Site(runner, Gatekeeper(access, readers_see_values=readers_see_values), title)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        async with runner:
            yield

    return Starlette(
        routes=_routes(site),
        lifespan=lifespan,
        middleware=[Middleware(SecureHeaders)],
        exception_handlers={HTTPException: _Failure(site), Exception: _Failure(site)},
    )


def _routes(site: Site) -> list[Route]:
    pages: dict[str, Page] = {
        "/": overview,
        "/runs": runs,
        "/run": run_pages.run,
        "/run/context": run_pages.context,
        "/run/events": run_pages.events,
        "/run/map": run_pages.items,
        "/run/live": run_stream,
        "/queues": queues,
        "/schedules": schedules,
        "/signals": signals,
        "/workers": workers,
        "/live": PulseEndpoint(),
    }
    forms: dict[str, Page] = {
        "/run/stop": actions.stop,
        "/run/resume": actions.resume,
        "/run/fork": actions.fork,
        "/run/signal": actions.signal,
        "/schedules/pause": actions.pause_schedule,
        "/schedules/resume": actions.resume_schedule,
        "/schedules/trigger": actions.trigger_schedule,
    }
    return [
        Route("/static/{name}", send_asset),
        *(Route(path, _Endpoint(site, page), methods=["GET"]) for path, page in pages.items()),
        *(Route(path, _Endpoint(site, page), methods=["POST"]) for path, page in forms.items()),
    ]


class _Endpoint:
    """Answers requests with a page, and errors with a page about the error."""

    def __init__(self, site: Site, page: Page) -> None:
        self._site = site
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        visit = await self._site.visit(request)
        try:
            response = await self._page(visit)
        except Exception as exc:  # noqa: BLE001 - the page shows what the visitor may see, and the rest is logged
            response = failure_page(visit, exc)
        await response(scope, receive, send)


class _Failure:
    """Answers requests that reach no page: refused requests, and addresses without a page."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, request: Request, error: Exception) -> Response:
        return failure_page(None, error)
