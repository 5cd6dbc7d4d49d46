"""Workflows whose names, params, outputs and errors are full of HTML, and ordinary ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from spine_async import END, Queue, RateLimit, Schedule, Step, StepError, Workflow, WorkflowContext

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
EVIL_STEP = "\"><svg onload=alert(3)>'"
"""Without a slash, which no name of a step contains."""

SECRET = "swordfish"


async def note(context: WorkflowContext, config: Any) -> dict[str, object]:
    return {"said": context.params.get("say", "nothing")}


async def fail(context: WorkflowContext, config: Any) -> None:
    raise StepError(f"failed with {context.params.get('say', SECRET)}", category="DATA_QUALITY")


async def item(context: WorkflowContext, config: Any) -> dict[str, object]:
    if context.params["item"] % 5 == 2:
        raise StepError(f"item {EVIL}", category="DATA_QUALITY")
    return {"item": context.params["item"]}


async def stream(context: WorkflowContext, config: Any) -> dict[str, object]:
    context.emit("token", {"text": SECRET})
    context.progress(1, 2, SECRET)
    return {}


PLAIN = Workflow("plain", [Step.lambda_("first", note), Step.lambda_("second", note)])
FAILING = Workflow("failing", [Step.lambda_("first", note), Step.lambda_("breaks", fail)])
WAITING = Workflow(
    "waiting",
    [
        Step.lambda_("first", note),
        Step.wait_for_signal("approval", timeout=timedelta(days=1)),
        Step.lambda_("last", note),
    ],
)
MAPPED = Workflow(
    "mapped",
    [Step.lambda_("first", note), Step.map("each", items=range(12), iterator=item, tolerated_failures=12)],
)
STREAMING = Workflow("streaming", [Step.lambda_("stream", stream), Step.wait_for_signal("go")])
HOSTILE = Workflow(
    EVIL,
    [
        Step.lambda_(EVIL_STEP, note),
        Step.parallel("both", {EVIL_STEP: note, "plain": note}),
        Step.lambda_("breaks", fail, catch={"DATA_QUALITY": "asks"}, next_step=END),
        Step.wait_for_signal("asks", signal=EVIL_STEP),
    ],
)
WORKFLOWS = [PLAIN, FAILING, WAITING, MAPPED, STREAMING, HOSTILE]
QUEUES: list[Queue | str] = [
    Queue("mail", concurrency=5, per_process=4, per_key=2, rate=RateLimit(100, per=60)),
    "idle",
]
SCHEDULES = [
    Schedule("nightly", PLAIN, cron="0 3 * * *", timezone="Europe/Berlin"),
    Schedule(f"often {EVIL_STEP}", PLAIN, every=86_400),
]
