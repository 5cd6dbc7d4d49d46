"""A service that imports rows from files: start an import in a page, watch it, confirm it, or stop it.

Start it with `python service.py`, and open http://127.0.0.1:8080.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
from aiohttp import web
from pydantic import BaseModel, Field

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async.integrations.aiohttp import setup

PAGE = Path(__file__).with_name("page.html")


class ImportParams(BaseModel):
    """What is imported."""

    files: list[str] = Field(min_length=1, max_length=1000)


class Confirmation(BaseModel):
    """The answer of the person who has seen what was read."""

    by: str


async def read(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    """Reads one file of the map. A file that was read is not read again after a crash."""
    await anyio.sleep(0.2)  # the file would be read here
    return {"file": context.params["item"], "rows": 100}


async def load(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    found = context.get_output("read", "results")
    return {"rows": sum(each["rows"] for each in found), "by": context.get_output("confirm", "value").by}


imports = Workflow(
    "imports",
    [
        Step.map("read", items_path="files", iterator=read, max_concurrency=2),
        Step.wait_for_signal("confirm", model=Confirmation),
        Step.lambda_("load", load),
    ],
    params_model=ImportParams,
)

# Replace this by the login of your application: whoever has opened the page may use the API.
SESSION = os.environ.get("SERVICE_SESSION", "demo")


async def authorize(request: web.Request, action: str, run_id: str | None = None) -> str | None:
    session = request.cookies.get("session", "")
    return "visitor" if secrets.compare_digest(session.encode(), SESSION.encode()) else None


async def page(request: web.Request) -> web.FileResponse:
    response = web.FileResponse(PAGE)
    response.set_cookie("session", SESSION, httponly=True, samesite="Strict")
    return response


def create_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", page)
    setup(app, WorkflowRunner(workflows=[imports]), authorize=authorize, prefix="/api")
    return app


if __name__ == "__main__":
    web.run_app(create_app(), host="127.0.0.1", port=8080, shutdown_timeout=10)
