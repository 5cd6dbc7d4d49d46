"""Routes for runs in an application of FastAPI; needs the extra `fastapi`.

Example:
    app = FastAPI(lifespan=lifespan(runner))
    app.include_router(router(runner, authorize=authorize))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import quote

from spine_async.errors import MissingExtraError
from spine_async.runner import WorkflowRunner
from spine_async.web import openapi, problems
from spine_async.web.access import Action, Authorize, allow_all
from spine_async.web.asgi import EventStreamResponse
from spine_async.web.exchange import WebRequest, WebResponse, decoded_segment, split_safe
from spine_async.web.operations import MAX_BODY_BYTES, RunOperations
from spine_async.web.routes import ROUTES, WebRoute
from spine_async.web.sse import HEARTBEAT, EventStream

try:
    from fastapi import APIRouter, Request, Response
    from fastapi.responses import JSONResponse
    from fastapi.routing import APIRoute
    from starlette.routing import Match
except ImportError as exc:
    raise MissingExtraError("spine_async.integrations.fastapi", "fastapi") from exc

_ALLOWED = "allowed_methods"

__all__ = ["Action", "Authorize", "allow_all", "lifespan", "router"]


def lifespan(runner: WorkflowRunner) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan of an application: the runner is entered while the application runs.

    Args:
        runner: The runner.

    Example:
        app = FastAPI(lifespan=lifespan(runner))
    """

    @asynccontextmanager
    async def running(app: object) -> AsyncIterator[None]:
        async with runner:
            yield

    return running


def router(
    runner: WorkflowRunner,
    *,
    authorize: Authorize,
    max_body_bytes: int = MAX_BODY_BYTES,
    heartbeat: float = HEARTBEAT,
) -> APIRouter:
    """A router with the routes of docs/web.md; `include_router(…, prefix="/api")` puts them below a prefix.

    Args:
        runner: The runner; it must be entered while requests are answered, for instance by `lifespan`.
        authorize: `async def authorize(request, action, run_id=None)`; returns the principal, a text, or None, which
            refuses the request. `allow_all` allows everybody everything.
        max_body_bytes: Largest body of a request.
        heartbeat: Seconds between two comments of an event stream.

    Raises:
        DefinitionError: An argument has a wrong type.
    """
    operations = RunOperations(runner, authorize, max_body_bytes=max_body_bytes, heartbeat=heartbeat)

    @asynccontextmanager
    async def listening(app: object) -> AsyncIterator[None]:
        with operations.notice.listening():
            yield

    made = APIRouter(route_class=_SegmentRoute, lifespan=listening, tags=[openapi.TAG])
    for route in ROUTES:
        _add(made, route, operations)
    return made


def _add(made: APIRouter, route: WebRoute, operations: RunOperations) -> None:
    async def endpoint(request: Request) -> Response:
        return _response(await route.answer_to(operations, _request(request)))

    endpoint.__name__ = route.name
    endpoint.__dict__[_ALLOWED] = [each.method for each in ROUTES if each.path == route.path]
    status, *others = route.statuses
    responses: dict[int | str, dict[str, Any]] = dict(openapi.response_parts(route).items())
    for other in others:
        model = {} if other == 204 else {"model": route.answer}
        responses[other] = {"description": openapi.status_text(other), **model}
    if route.streams:
        responses[status] = {"content": openapi.stream_part()}
    made.add_api_route(
        route.path,
        endpoint,
        methods=[route.method],
        summary=route.summary,
        status_code=status,
        response_model=route.answer,
        response_description=openapi.status_text(status),
        response_class=Response if route.answer is None else JSONResponse,
        responses=responses,
        openapi_extra=openapi.request_part(route),
    )


class _SegmentRoute(APIRoute):
    """A route whose variable segments may contain encoded slashes, as the ids of child runs do."""

    def matches(self, scope: Any) -> tuple[Match, Any]:
        match, child_scope = super().matches({**scope, "path": split_safe(_raw_path(scope))})
        if match is not Match.NONE:
            segments = child_scope["path_params"].items()
            child_scope["path_params"] = {name: decoded_segment(str(value)) for name, value in segments}
        return match, child_scope

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        # Starlette would name the methods of one route, but several routes have this path.
        problem = problems.method_not_allowed(getattr(self.endpoint, _ALLOWED))
        await _response(WebResponse.problem(problem))(scope, receive, send)


def _raw_path(scope: Any) -> str:
    """The path as it was sent; not every server passes it on."""
    raw: bytes | None = scope.get("raw_path")
    return raw.decode("latin-1") if raw else quote(scope["path"])


def _request(request: Request) -> WebRequest:
    return WebRequest(
        native=request,
        method=request.method,
        raw_path=_raw_path(request.scope),
        path=request.path_params,
        query=request.query_params.multi_items(),
        header=request.headers.get,
        chunks=request.stream,
    )


def _response(response: WebResponse) -> Response:
    if response.stream is not None:
        return _StreamResponse(response.stream)
    media_type = response.media_type
    return Response(response.body, response.status, dict(response.headers), media_type)


class _StreamResponse(Response):
    """A response that sends a stream of events."""

    def __init__(self, stream: EventStream) -> None:
        super().__init__()
        self._stream = stream

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await EventStreamResponse(self._stream)(scope, receive, send)
