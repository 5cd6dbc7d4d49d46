"""A dashboard as its visitors use it: without a server, and by a server in this process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount

from spine_async import RunHandle, RunStatus, Workflow, WorkflowRunner
from spine_async.dashboard import dashboard
from tests.service.services import until

ORIGIN = "http://board.test"
SAME_ORIGIN = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
PREFIX = "/admin/spine"


class Board:
    """A dashboard that is mounted below a prefix.

    The header `Level` of a request says what its visitor may do; `all` without it.
    """

    def __init__(self, runner: WorkflowRunner, client: httpx.AsyncClient, **options: Any) -> None:
        self.runner = runner
        self.app = Starlette(routes=[Mount(PREFIX, mounted(runner, **options))])
        client._transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        client.base_url = httpx.URL(ORIGIN + PREFIX)
        self.client = client

    async def get(self, path: str, /, *, level: str = "all", **query: str) -> httpx.Response:
        return await self.client.get(path, params=query or None, headers={"Level": level})

    async def page(self, path: str, /, *, level: str = "all", **query: str) -> str:
        """The text of a page that must exist."""
        answer = await self.get(path, level=level, **query)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def post(
        self, path: str, form: Mapping[str, str], *, level: str = "all", headers: Mapping[str, str] = SAME_ORIGIN
    ) -> httpx.Response:
        return await self.client.post(path, data=dict(form), headers={**headers, "Level": level})

    async def started(self, workflow: Workflow, status: RunStatus, run_id: str = "r", **params: object) -> RunHandle:
        """A run that has come to this status."""
        handle = await self.runner.start(workflow, run_id=run_id, params=params)

        async def is_there() -> bool:
            return await handle.status() is status

        await until(is_there)
        return handle


def level_of(request: Any) -> Any:
    level = request.headers.get("level", "all")
    return None if level == "none" else level


def mounted(runner: WorkflowRunner, **options: Any) -> Starlette:
    return dashboard(runner, **{"access": level_of, **options})


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its visible texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """The visible text, with single spaces."""
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of the elements with this name."""
        return [attributes for name, attributes in self.found if name == tag]

    def links(self) -> list[str]:
        """The addresses that the page leads to or loads."""
        places = ("href", "src", "action", "hx-get", "data-live")
        return [str(given[place]) for _, given in self.found for place in places if given.get(place)]
