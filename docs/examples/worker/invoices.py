"""Invoices: a workflow for a worker, its queue, and a schedule.

The worker is `spine-async worker invoices`; see `docs/command-line.md`.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from pydantic import BaseModel

from spine_async import Queue, RetryPolicy, Schedule, Step, Workflow, WorkflowContext


class Order(BaseModel):
    """The params of a run."""

    customer: str = "all"
    lines: int = 3


async def price(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    """Price each line; report progress, which `spine-async watch` shows."""
    cents = 0
    for number in range(context.params["lines"]):
        await anyio.sleep(0.1)  # a service answers
        cents += 250 * (number + 1)
        context.progress(number + 1, context.params["lines"], "lines priced")
    return {"cents": cents}


async def write(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    """Write the invoice. A repeated execution writes the same file."""
    file = Path(f"invoice-{context.run_id}.txt")
    await anyio.Path(file).write_text(f"{context.params['customer']}: {context.get_output('price', 'cents')} cents\n")
    return {"file": str(file)}


invoices = Workflow(
    "invoices",
    [
        Step.lambda_("price", price, retry=RetryPolicy(max_attempts=5), timeout=60),
        Step.wait_for_signal("approve"),
        Step.lambda_("write", write),
    ],
    params_model=Order,
)
billing = Queue("billing", concurrency=20, per_key=1)
monthly = Schedule("monthly", invoices, cron="0 6 1 * *", timezone="Europe/Berlin", queue="billing")
ping = Schedule("ping", Workflow("ping", [Step.wait("pause", 0.01)]), every=timedelta(hours=1))
