"""Steps that wait until they are cancelled, and record the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from spine_async import Step, Workflow, WorkflowContext


@dataclass
class Sleeper:
    """A step that sleeps until it is cancelled.

    Attributes:
        started: Set when the step has begun.
        reasons: Values of `context.cancel_reason` at its cancellation.
        ran: Steps that have begun, in order.
    """

    started: anyio.Event = field(default_factory=anyio.Event)
    reasons: list[str | None] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    sleeps: bool = True

    async def sleep(self, context: WorkflowContext, config: Mapping[str, object]) -> dict[str, object]:
        self.ran.append(str(context.step_name))
        assert context.cancel_reason is None
        self.started.set()
        try:
            if self.sleeps:
                await anyio.sleep_forever()
        except BaseException:
            self.reasons.append(context.cancel_reason)
            raise
        return {}

    async def pass_by(self, context: WorkflowContext, config: Mapping[str, object]) -> dict[str, object]:
        self.ran.append(str(context.step_name))
        return {}

    def workflow(self, timeout: float | None = None) -> Workflow:
        steps = [
            Step.lambda_("first", self.pass_by),
            Step.lambda_("sleep", self.sleep, timeout=timeout),
            Step.lambda_("last", self.pass_by),
        ]
        return Workflow("sleepy", steps)
