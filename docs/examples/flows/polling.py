"""Asks a slow service for the state of a job until it is done, and keeps a history of the answers."""

from __future__ import annotations

from typing import Any

from spine_async import END, Step, StepResult, Workflow, WorkflowContext


async def submit(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {"job": f"job of {context.params['file']}"}


async def ask(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
    percent = 25 * (len(context.params.get("history", [])) + 1)  # stands for a request to the service
    return StepResult.ok({"percent": percent}, append={"history": [percent]})


def is_done(context: WorkflowContext) -> bool:
    return bool(context.get_output("ask", "percent") >= 100)


async def report(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {"answers": context.params["history"]}


WORKFLOW = Workflow(
    "transcode",
    [
        Step.lambda_("submit", submit),
        Step.lambda_("ask", ask),
        Step.choice("done", is_done, then_step="report"),
        Step.wait("pause", 0.01, next_step="ask"),
        Step.lambda_("report", report, next_step=END),
    ],
)
