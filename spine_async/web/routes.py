"""The table of routes, which the routers of all frameworks follow, and the answer to a request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import BaseModel

from spine_async.errors import SpineError
from spine_async.web.access import Action
from spine_async.web.documents import (
    EventPage,
    RunDocument,
    RunPage,
    StopDocument,
    WorkflowList,
)
from spine_async.web.exchange import WebRequest, WebResponse
from spine_async.web.operations import RunOperations
from spine_async.web.parameters import (
    EventsQuery,
    NoQuery,
    ResumeBody,
    RunsQuery,
    SignalBody,
    StartBody,
    StartQuery,
    StopBody,
    WaitQuery,
)
from spine_async.web.problems import ProblemError, problem_of

Operation: TypeAlias = Callable[[RunOperations, WebRequest, str], Awaitable[WebResponse]]

_log = logging.getLogger("spine_async")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRoute:
    """One route.

    Attributes:
        path: Template of the path; `{run_id}` and `{name}` are single segments.
        action: What `authorize` is asked for.
        operation: Answers a request; its name and docstring describe the route.
        statuses: Status codes of a successful answer, the usual one first.
        answer: Model of the JSON document of the answer, or None.
        query: Model of the query.
        body: Model of the JSON body, or None if the method has none.
        headers: Names of request headers that count.
        problems: Status codes of problems besides those of every route.
        streams: Whether the answer may be a stream of events.
    """

    method: str
    path: str
    action: Action
    operation: Operation
    statuses: tuple[int, ...] = (200,)
    answer: type[BaseModel] | None = None
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    problems: tuple[int, ...] = ()
    streams: bool = False

    @property
    def name(self) -> str:
        """Name of the operation."""
        return str(getattr(self.operation, "__name__", self.action))

    @property
    def summary(self) -> str:
        """What the operation does, in one sentence."""
        return (self.operation.__doc__ or "").partition("\n")[0]

    @property
    def path_names(self) -> list[str]:
        """Names of the variable segments of the path, in order."""
        return [each[1:-1] for each in self.path.split("/") if each.startswith("{")]

    async def answer_to(self, operations: RunOperations, request: WebRequest) -> WebResponse:
        """Answer a request. An error that is none of this library's propagates to the framework."""
        try:
            principal = await operations.permit(request, self.action, request.path.get("run_id"))
            return await self.operation(operations, request, principal)
        except (ProblemError, SpineError) as exc:
            problem = problem_of(exc)
            if problem.is_fault:
                _log.error("%s %s: %s", request.method, self.path, exc, exc_info=exc)
            return WebResponse.problem(problem)


ROUTES = (
    WebRoute(
        method="GET",
        path="/workflows",
        action="list_workflows",
        operation=RunOperations.list_workflows,
        answer=WorkflowList,
    ),
    WebRoute(
        method="POST",
        path="/workflows/{name}/runs",
        action="start_run",
        operation=RunOperations.start_run,
        statuses=(202, 200),
        answer=RunDocument,
        query=StartQuery,
        body=StartBody,
        headers=("Idempotency-Key",),
        problems=(404, 409, 501),
    ),
    WebRoute(
        method="GET",
        path="/runs",
        action="list_runs",
        operation=RunOperations.list_runs,
        answer=RunPage,
        query=RunsQuery,
    ),
    WebRoute(
        method="GET",
        path="/runs/{run_id}",
        action="read_run",
        operation=RunOperations.read_run,
        answer=RunDocument,
        query=WaitQuery,
        problems=(404,),
    ),
    WebRoute(
        method="GET",
        path="/runs/{run_id}/events",
        action="read_run",
        operation=RunOperations.read_events,
        statuses=(200, 204),
        answer=EventPage,
        query=EventsQuery,
        headers=("Last-Event-ID",),
        problems=(404,),
        streams=True,
    ),
    WebRoute(
        method="POST",
        path="/runs/{run_id}/signals/{name}",
        action="send_signal",
        operation=RunOperations.send_signal,
        statuses=(204,),
        body=SignalBody,
        headers=("Idempotency-Key",),
        problems=(404, 409, 501),
    ),
    WebRoute(
        method="POST",
        path="/runs/{run_id}/stop",
        action="stop_run",
        operation=RunOperations.stop_run,
        answer=StopDocument,
        body=StopBody,
        problems=(404,),
    ),
    WebRoute(
        method="POST",
        path="/runs/{run_id}/resume",
        action="resume_run",
        operation=RunOperations.resume_run,
        statuses=(202,),
        answer=RunDocument,
        body=ResumeBody,
        problems=(404, 409),
    ),
    WebRoute(
        method="DELETE",
        path="/runs/{run_id}",
        action="delete_run",
        operation=RunOperations.delete_run,
        statuses=(204,),
        problems=(404, 409),
    ),
)
