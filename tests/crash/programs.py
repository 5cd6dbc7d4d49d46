"""Programs of the processes that are killed: the stocks example, and a map of many items.

Every step visit appends its path to a file as it begins, so that the file counts executions over all processes. The
process kills itself, without any cleanup, at the moment that it is given: `before:PATH` when the visit begins,
`after:PATH` when it has ended and is not yet committed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import anyio

from spine_async import Dispatcher, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig

STOCKS = Path(__file__).parents[2] / "docs" / "examples" / "stocks"
MANY = 2_000
AT_ONCE = 20


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL did not end the process")


class Count:
    """Writes executions, one line each, to a file."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.here = 0

    def add(self, what: str) -> None:
        self.here += 1
        os.write(self._file, f"{what}\n".encode())


def watched(runner: WorkflowRunner, count: Count, moment: str | None) -> None:
    """Record each step visit, and kill the process at the given moment."""

    @runner.middleware
    async def watch(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        path = str(context.idempotency_key).removeprefix(f"{context.run_id}/")
        if moment == f"before:{path}":
            die()
        count.add(path)
        result: StepResult = await next_fn(step, context)
        if moment == f"after:{path}":
            die()
        return result


def stocks() -> tuple[Workflow, Dispatcher]:
    sys.path.insert(0, str(STOCKS))
    from flow import dispatcher, workflow  # type: ignore[import-not-found]  # noqa: PLC0415 (its folder is known now)

    return workflow, dispatcher


def many(count: Count, die_at: int | None) -> Workflow:
    async def item(context: WorkflowContext, config: dict[str, object]) -> dict[str, object]:
        if count.here == die_at:
            die()
        count.add(str(context.params["item"]))
        return {"item": context.params["item"]}

    return Workflow("many", [Step.map("each", items=range(MANY), iterator=item, max_concurrency=AT_ONCE)])


async def main(asked: argparse.Namespace) -> None:
    count = Count(asked.count)
    dispatcher: Dispatcher | None
    if asked.what == "stocks":
        workflow, dispatcher = stocks()
        params = {"csv": str(STOCKS / "stocks.csv"), "output": asked.output}
    else:
        workflow, dispatcher = many(count, asked.die_at), None
        params = {}
    config = WorkflowRunnerConfig(database_url=asked.database, durability=asked.durability)
    async with WorkflowRunner(dispatcher=dispatcher, config=config) as runner:
        if asked.what == "stocks":
            watched(runner, count, asked.kill)
        if asked.resume:
            result = await runner.resume(asked.run_id, workflow=workflow)
        else:
            result = await runner.execute(workflow, params=params, run_id=asked.run_id)
    result.raise_for_status()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("stocks", "many"))
    for option in ("database", "run-id", "count"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--output", default="")
    parser.add_argument("--kill")
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--durability", default="full")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    anyio.run(main, parsed())
