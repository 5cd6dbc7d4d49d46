"""Pages about errors: what went wrong, and what to do. They show no internals."""

from __future__ import annotations

import logging
from html import escape

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from spine_async.dashboard.forms import FormError
from spine_async.dashboard.site import Visit
from spine_async.errors import DefinitionError, StoreError
from spine_async.web.problems import problem_of

_log = logging.getLogger("spine_async")

_PLAIN = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    "<body><h1>{title}</h1><p>{text}</p></body></html>"
)


def failure_page(visit: Visit | None, error: Exception) -> Response:
    """The answer for an error.

    Args:
        visit: The visit, for a page with navigation; None for a visitor without access.
        error: The error.
    """
    status, title, text, headers = _described(error)
    if status in {204, 304} or 300 <= status < 400:
        return Response(status_code=status, headers=headers)
    if visit is None:
        return HTMLResponse(_PLAIN.format(title=escape(title), text=escape(text)), status, headers=headers)
    response = visit.page("failure.html", status=status, title=title, text=text, live=None)
    response.headers.update(headers)
    return response


def _described(error: Exception) -> tuple[int, str, str, dict[str, str]]:
    """Status, title, text and headers for an error."""
    if isinstance(error, HTTPException):
        return error.status_code, _TITLES.get(error.status_code, "Refused"), error.detail, dict(error.headers or {})
    if isinstance(error, FormError):
        return 400, "The request is invalid", str(error), {}
    if isinstance(error, DefinitionError) or (isinstance(error, ValueError) and not isinstance(error, StoreError)):
        return 400, "The request is invalid", str(error), {}
    problem = problem_of(error)
    if problem.is_fault:
        _log.error("a page of the dashboard could not be made: %s", error, exc_info=error)
    if problem.status == 500:
        return 500, "This page could not be made", "The log of the server contains the reason.", {}
    return problem.status, problem.title, problem.detail, dict(problem.headers)


_TITLES = {403: "No access", 404: "There is no such page", 405: "This address takes no such request"}
