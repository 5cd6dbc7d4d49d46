"""Handlers for tests of steps that execute others: each records what it sees, and may fail, wait or end a branch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio

from spine_async import Step, StepError, WorkflowContext
from tests.service.flows import Config


class Handlers:
    """Steps by name.

    Attributes:
        ran: How often each visit began, by path.
        seen: Params and names of the outputs that each visit saw, by path.
        broken: Names of steps that fail.
        reasons: Why steps were cancelled, by path.
        gate: Opens for steps that block.
    """

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.seen: dict[str, tuple[dict[str, Any], list[str]]] = {}
        self.broken: set[str] = set()
        self.reasons: dict[str, str | None] = {}
        self.gate = anyio.Event()

    async def work(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self._note(context)
        if context.step_name in self.broken:
            raise StepError(f"{context.step_name} is broken", category="DEPENDENCY")
        return {"by": context.step_name}

    async def block(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        path = self._note(context)
        try:
            await self.gate.wait()
        except BaseException:
            self.reasons[path] = context.cancel_reason
            raise
        return {"by": context.step_name}

    def step(self, name: str, **options: Any) -> Step:
        return Step.lambda_(name, self.work, **options)

    def blocking(self, name: str, **options: Any) -> Step:
        return Step.lambda_(name, self.block, **options)

    def repeated(self) -> list[str]:
        """Paths of visits that began more than once."""
        return sorted(path for path, times in self.ran.items() if times > 1)

    def _note(self, context: WorkflowContext) -> str:
        path = str(context.idempotency_key).removeprefix(f"{context.run_id}/")
        self.ran[path] += 1
        self.seen[path] = (dict(context.params), sorted(context.outputs))
        return path
