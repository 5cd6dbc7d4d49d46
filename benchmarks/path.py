"""The path of one step: which functions of the library an ordinary step on SQLite calls, and in which files.

`python -m benchmarks.path` prints how many files, changes of file and calls there are; with `--list`, also each call.
A coroutine that continues counts as a call.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NamedTuple

import spine_async
from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig

_ROOT = str(Path(spine_async.__file__).parent)
_STEPS = 240
_WARM_UP = 20  # steps at either end that are not counted


class _Call(NamedTuple):
    file: str
    function: str


def trace() -> list[Sequence[_Call]]:
    """The calls of each step of a run, in all threads, from one call of its handler to the next."""
    calls: list[_Call] = []
    marks: list[int] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_ROOT):
            calls.append(_Call(code.co_filename[len(_ROOT) + 1 :], code.co_qualname))

    async def handler(context: WorkflowContext, config: dict[str, object]) -> dict[str, object]:
        marks.append(len(calls))
        return {"rows": 3}

    async def run() -> None:
        workflow = Workflow("path", [Step.lambda_(f"step_{index}", handler) for index in range(_STEPS)])
        with TemporaryDirectory() as folder:
            config = WorkflowRunnerConfig(database_url=f"sqlite+aiosqlite:///{folder}/runs.db")
            async with WorkflowRunner(config=config) as runner:
                (await runner.execute(workflow)).raise_for_status()

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        asyncio.run(run())
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return [calls[first:last] for first, last in pairwise(marks[_WARM_UP:-_WARM_UP])]


def main() -> None:
    """Print the path."""
    steps = trace()
    files = median(len({call.file for call in step}) for step in steps)
    changes = median(sum(one.file != other.file for one, other in pairwise(step)) for step in steps)
    count = median(map(len, steps))
    if "--list" in sys.argv[1:]:
        for call in next(step for step in steps if len(step) == count):
            print(f"{call.file:45} {call.function}")
    print(f"{files:.0f} files, {changes:.0f} changes of file, {count:.0f} calls")


if __name__ == "__main__":
    main()
