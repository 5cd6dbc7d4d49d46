"""Routes for runs in an application of aiohttp; needs the extra `aiohttp`.

Example:
    setup(app, runner, authorize=authorize)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from spine_async.errors import MissingExtraError
from spine_async.runner import WorkflowRunner
from spine_async.web import sse
from spine_async.web.access import Action, Authorize, allow_all
from spine_async.web.exchange import WebRequest, WebResponse
from spine_async.web.operations import MAX_BODY_BYTES, RunOperations
from spine_async.web.routes import ROUTES, WebRoute
from spine_async.web.sse import HEARTBEAT, EventStream

try:
    from aiohttp import web
except ImportError as exc:
    raise MissingExtraError("spine_async.integrations.aiohttp", "aiohttp") from exc

__all__ = ["Action", "Authorize", "allow_all", "setup"]


def setup(
    app: web.Application,
    runner: WorkflowRunner,
    *,
    authorize: Authorize,
    prefix: str = "",
    max_body_bytes: int = MAX_BODY_BYTES,
    heartbeat: float = HEARTBEAT,
) -> None:
    """Add the routes of docs/web.md to an application, and enter the runner while the application runs.

    Args:
        app: The application, or one that is added to another one by `add_subapp`.
        runner: The runner; the application may also enter it by itself.
        authorize: `async def authorize(request, action, run_id=None)`; returns the principal, a text, or None, which
            refuses the request. `allow_all` allows everybody everything.
        prefix: Path below which the routes are, such as `/api`.
        max_body_bytes: Largest body of a request.
        heartbeat: Seconds between two comments of an event stream.

    Raises:
        DefinitionError: An argument has a wrong type.
    """
    operations = RunOperations(runner, authorize, max_body_bytes=max_body_bytes, heartbeat=heartbeat)

    async def running(app: web.Application) -> AsyncIterator[None]:
        async with runner:
            yield

    async def end_streams(app: web.Application) -> None:
        operations.notice.set()

    app.cleanup_ctx.append(running)
    app.on_shutdown.append(end_streams)
    for route in ROUTES:
        app.router.add_route(route.method, prefix + route.path, _handler(route, operations))


def _handler(route: WebRoute, operations: RunOperations) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = await route.answer_to(operations, _request(request))
        if response.stream is not None:
            return await _send(request, response.stream)
        return _response(response)

    return handle


def _request(request: web.Request) -> WebRequest:
    return WebRequest(
        native=request,
        method=request.method,
        raw_path=request.rel_url.raw_path,
        path=request.match_info,
        query=list(request.query.items()),
        header=request.headers.get,
        chunks=request.content.iter_any,
    )


def _response(response: WebResponse) -> web.Response:
    if response.media_type is None:
        return web.Response(status=response.status, headers=response.headers)
    headers = {"Content-Type": response.media_type, **response.headers}
    return web.Response(body=response.body, status=response.status, headers=headers)


async def _send(request: web.Request, stream: EventStream) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": sse.MEDIA_TYPE, **sse.HEADERS})
    await response.prepare(request)
    await stream.write_to(response.write)
    return response
