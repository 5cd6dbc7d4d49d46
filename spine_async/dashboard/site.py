"""What all pages share: the runner, the templates, the addresses, and who may see what."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote, urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from spine_async.dashboard import formatting
from spine_async.dashboard.access import Gatekeeper, Permission
from spine_async.dashboard.assets import ASSETS
from spine_async.runner import WorkflowRunner
from spine_async.web.shutdown import ShutdownNotice

NAVIGATION = (
    ("Overview", "/"),
    ("Runs", "/runs"),
    ("Queues", "/queues"),
    ("Schedules", "/schedules"),
    ("Signals", "/signals"),
    ("Workers", "/workers"),
)
NOTICES = {
    "stopping": "The run was asked to stop.",
    "not-under-way": "The run had ended already, so nothing was done.",
    "resumed": "The run continues in this process.",
    "forked": "This is the new run.",
    "signalled": "The signal is stored.",
    "paused": "The schedule is paused.",
    "unpaused": "The schedule fires again.",
    "triggered": "A run of the schedule was started.",
}
"""What a page says after a form was sent. Only these texts, so that a link cannot make a page say something else."""

_PARTIAL = "hx-request"


def page_environment() -> jinja2.Environment:
    """The templates. Everything that they print is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spine_async.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "duration": formatting.duration,
        "timestamp": formatting.timestamp,
        "clock": formatting.clock,
        "number": formatting.number,
        "as_json": formatting.as_json,
        "as_line": formatting.as_line,
    }
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)  # compiled now, and not during a request
    return environment


PAGES = page_environment()
"""Read when this module is imported, so that no request and no constructor waits for a disk."""


@dataclass(frozen=True, slots=True)
class Site:
    """The dashboard of one runner.

    Attributes:
        title: Name of the application, in the heading of all pages.
        notice: Tells event streams that the server is about to stop.
    """

    runner: WorkflowRunner
    gatekeeper: Gatekeeper
    title: str
    notice: ShutdownNotice = field(default_factory=ShutdownNotice)

    async def visit(self, request: Request) -> Visit:
        """A request with what it may do.

        Raises:
            HTTPException: It is refused.
        """
        return Visit(self, request, await self.gatekeeper.permission(request))


@dataclass(frozen=True, slots=True)
class Visit:
    """A request for a page.

    Attributes:
        permission: What it may do.
        now: The time of the request; all ages on a page refer to it.
    """

    site: Site
    request: Request
    permission: Permission
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def runner(self) -> WorkflowRunner:
        """The runner."""
        return self.site.runner

    @property
    def is_partial(self) -> bool:
        """Whether htmx asks for a part of the page."""
        return _PARTIAL in self.request.headers

    def query(self, name: str) -> str | None:
        """A parameter of the address; None if it is missing or empty."""
        return self.request.query_params.get(name, "").strip() or None

    def url(self, path: str, /, **query: object) -> str:
        """The address of a page, below the place where the dashboard is mounted. Parameters that are None are left out.

        Ids are parameters and not parts of the path, because they may contain slashes and dots, which proxies change.
        """
        given = {name: str(value) for name, value in query.items() if value is not None}
        return f"{quote(self._root)}{path}" + (f"?{urlencode(given)}" if given else "")

    @property
    def here(self) -> str:
        """The address of this page."""
        path = self.request.scope["path"]
        return self.url(path.removeprefix(self._root) or "/", **self.request.query_params)

    @property
    def _root(self) -> str:
        return str(self.request.scope.get("root_path", "")).rstrip("/")

    def page(self, template: str, *, status: int = 200, **values: object) -> Response:
        """An answer with a page."""
        return HTMLResponse(self.render(template, **values), status)

    def redirect(self, path: str, **query: object) -> Response:
        """An answer that leads to another page, after a form was sent."""
        return RedirectResponse(self.url(path, **query), 303)

    def render(self, template: str, **values: object) -> str:
        """The text of a template."""
        return PAGES.get_template(template).render(
            visit=self,
            may=self.permission,
            url=self.url,
            asset=self._asset,
            ago=partial(formatting.ago, now=self.now),
            navigation=NAVIGATION,
            notice=NOTICES.get(self.query("notice") or ""),
            **{"live": None, **values},
        )

    def _asset(self, name: str) -> str:
        return self.url(f"/static/{name}", v=ASSETS[name].version)
