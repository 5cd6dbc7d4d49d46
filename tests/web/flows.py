"""The workflows of the web tests, and who may do what with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from pydantic import BaseModel, Field

from spine_async import Step, StepError, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from tests.service.flows import LOOK_EVERY, Config, Notes

SECRET = "s3cret-value"
HOSTILE = "<script>alert('x')</script>"


class Greeting(BaseModel):
    """Params of `greet`."""

    name: str
    times: int = Field(1, ge=1)


class Approval(BaseModel):
    """What `approval` waits for."""

    by: str


class WebFlows:
    """Workflows whose steps wait for files in a folder, which the test creates."""

    def __init__(self, folder: Path) -> None:
        self.notes = Notes(folder)
        self.all = [
            Workflow(
                "greet", [Step.lambda_("hello", self._greet)], params_model=Greeting, description="Greets.", tags=["a"]
            ),
            Workflow("chat", [Step.lambda_("answer", self._chat)]),
            Workflow("approval", [Step.wait_for_signal("approval", model=Approval), Step.lambda_("done", self._done)]),
            Workflow("fragile", [Step.lambda_("first", self._note), Step.lambda_("second", self._fail_at_first)]),
            Workflow(HOSTILE, [Step.lambda_("step", self._note)]),
            Workflow("parent", [Step.workflow("child", Workflow("child", [Step.lambda_("c", self._note)]), queue="q")]),
        ]

    def _greet(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.notes.add(context)
        return {"said": f"hello {context.params['name']}"}

    async def _chat(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        """Emits three tokens, and the rest when the gate is open; continues where it was."""
        last = context.last_progress
        first = int(last.done) if last is not None else 0
        for number in range(first, 6):
            if number == 3:
                await context.flush()
                while not await to_thread.run_sync(self.notes.is_open, str(context.params["gate"])):  # noqa: ASYNC110
                    await anyio.sleep(LOOK_EVERY)
            context.emit("token", {"text": f"{SECRET}-{number}"})
            context.progress(number + 1, 6)
        return {"text": SECRET}

    async def _done(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        approval: Approval = context.get_output("approval", "value")
        return {"by": approval.by}

    def _note(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.notes.add(context)
        return {}

    async def _fail_at_first(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        if not context.params.get("is_mended"):
            raise StepError(f"{SECRET} is broken", category="VALIDATION")
        return {}


async def authorize(request: Any, action: str, run_id: str | None = None) -> str | None:
    """Reads the rights from the request: `Authorization: alice read_run,read_values` or `alice *`.

    With `X-Runs: a,b` the caller may do something with these runs only.
    """
    header = request.headers.get("authorization")
    if header is None:
        return None
    principal, _, actions = header.partition(" ")
    runs = request.headers.get("x-runs")
    if runs is not None and run_id is not None and run_id not in runs.split(","):
        return None
    return str(principal) if actions == "*" or action in actions.split(",") else None


def make_runner(url: str, folder: Path, **config: Any) -> tuple[WorkflowRunner, WebFlows]:
    """A runner on a database that knows the workflows."""
    flows = WebFlows(folder)
    chosen = {"database_url": url, "trace_enabled": False, "drain_timeout": 0.2, "cancel_grace": 0.3, "lease_ttl": 60}
    return WorkflowRunner(config=WorkflowRunnerConfig(**{**chosen, **config}), workflows=flows.all), flows
