"""The application that the commands of the tests operate. Its steps talk to the tests through files of the working
directory.
"""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from pydantic import BaseModel

from spine_async import Queue, RetryPolicy, Schedule, Step, StepError, StepResult, Workflow, WorkflowContext

GATE = "gate"
"""While this file does not exist, a held step goes on."""

LOG = "log"
"""A line for each execution of a step."""


def _log(step: str | None) -> None:
    with Path(LOG).open("a") as file:
        file.write(f"{step}\n")


async def note(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    _log(context.step_name)
    return {"for": context.params.get("name", "world"), "items": [1, 2, 3]}


async def hold(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    _log(context.step_name)
    context.progress(1, 2, "holding")
    while not Path(GATE).exists():  # noqa: ASYNC110 - another process makes the file
        await anyio.sleep(0.01)
    return {}


async def fail_unless_mended(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    if not context.params.get("mended"):
        raise StepError("the disk is \x1b[31mfull", category="DEPENDENCY")
    return {"mended": True}


async def fail_once(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    if context.attempt == 1:
        raise StepError("busy", category="TRANSIENT")
    return {"number": context.params["number"]}


def block(context: WorkflowContext, config: dict[str, Any]) -> None:
    _log("hold")
    time.sleep(300)  # longer than any test waits


async def leave(context: WorkflowContext, config: dict[str, Any]) -> None:
    raise SystemExit(3)


async def stop(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
    return StepResult.stop("nothing to do")


class Order(BaseModel):
    amount: int


greet = Workflow("greet", [Step.lambda_("note", note), Step.lambda_("again", note)])
broken = Workflow("broken", [Step.lambda_("note", note), Step.lambda_("mend", fail_unless_mended)])
idle = Workflow("idle", [Step.lambda_("stop", stop)])
order = Workflow("order", [Step.lambda_("note", note)], params_model=Order)
ask = Workflow("ask", [Step.wait_for_signal("approve"), Step.lambda_("note", note)])
held = Workflow("held", [Step.lambda_("note", note), Step.lambda_("hold", hold), Step.lambda_("end", note)])
thread = Workflow("thread", [Step.lambda_("block", block)])
leaving = Workflow("leaving", [Step.lambda_("leave", leave)])
large = Workflow(
    "large",
    [
        Step.lambda_("note", note),
        Step.map(
            "each",
            items_path="note.items",
            item_param="number",
            iterator=Workflow(steps=[Step.lambda_("once", fail_once, retry=RetryPolicy(delays=[0.001]))]),
        ),
        Step.choice("done?", lambda context: True, "end", "note"),
        Step.lambda_("end", note, compensate=note),
    ],
)
ticks = Schedule("ticks", greet, every=timedelta(days=3650))
mail = Queue("mail", concurrency=5)
