"""A trip of flight, hotel and car: if one cannot be booked, the others are cancelled, the last one first."""

from __future__ import annotations

from typing import Any

from spine_async import Step, StepResult, Workflow, WorkflowContext


async def book(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
    if config["what"] in context.params.get("sold_out", []):
        return StepResult.fail(f"there is no {config['what']}", "DATA_QUALITY")
    return StepResult.ok({"booking": f"{config['what']} for {context.params['guest']}"})


async def cancel(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {"cancelled": context.get_output(config["what"], "booking")}


async def write(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {"written_to": context.params["guest"]}


WORKFLOW = Workflow(
    "trip",
    [Step.lambda_(what, book, config={"what": what}, compensate=cancel) for what in ("flight", "hotel", "car")],
    cleanup=[Step.lambda_("write", write)],
)
