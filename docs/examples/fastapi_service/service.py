"""A service that writes reports: start one in a page, watch it, approve it, or stop it.

Start it with `uvicorn service:app --timeout-graceful-shutdown 10`, and open http://127.0.0.1:8000.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async.integrations.fastapi import lifespan, router

PAGE = Path(__file__).with_name("page.html")


class ReportParams(BaseModel):
    """What a report is about."""

    topic: str = Field(min_length=1, max_length=100)
    sections: int = Field(20, ge=1, le=1000)


class Approval(BaseModel):
    """The answer of the person who has read the report."""

    approved: bool
    by: str


async def write(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the sections. After a crash it continues with the first one that was not reported as done."""
    last = context.last_progress
    first = int(last.done) if last is not None else 0
    total = int(context.params["sections"])
    for number in range(first, total):
        await anyio.sleep(0.1)  # a model would write the section here
        section = {"number": number + 1, "text": f"Section {number + 1} about {context.params['topic']}"}
        context.emit("section", section)  # after a crash the last one may be emitted again, so it has its number
        context.progress(number + 1, total)
    return {"sections": total}


async def publish(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    approval: Approval = context.get_output("approval", "value")
    return {"is_published": approval.approved, "by": approval.by}


reports = Workflow(
    "reports",
    [
        Step.lambda_("write", write, idle_timeout=30),
        Step.wait_for_signal("approval", model=Approval),
        Step.lambda_("publish", publish),
    ],
    params_model=ReportParams,
)

# Replace this by the login of your application: whoever has opened the page may use the API.
SESSION = os.environ.get("SERVICE_SESSION", "demo")


async def authorize(request: Request, action: str, run_id: str | None = None) -> str | None:
    session = request.cookies.get("session", "")
    return "visitor" if secrets.compare_digest(session.encode(), SESSION.encode()) else None


runner = WorkflowRunner(workflows=[reports])
app = FastAPI(title="Reports", lifespan=lifespan(runner))
app.include_router(router(runner, authorize=authorize), prefix="/api")


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    response = FileResponse(PAGE)
    response.set_cookie("session", SESSION, httponly=True, samesite="strict")
    return response
