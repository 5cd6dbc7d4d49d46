"""Compare share prices, durably: kill this program at any moment and go on with `--resume RUN_ID`.

python docs/examples/stocks/report.py
python docs/examples/stocks/report.py --pause 1      # slow enough to be killed in the middle
python docs/examples/stocks/report.py --resume RUN_ID
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

import anyio
import layout
from flow import dispatcher, workflow

from spine_async import SpineError, Step, StepResult, WorkflowContext, WorkflowResult, WorkflowRunner
from spine_async import WorkflowRunnerConfig as Config

PRICES = Path(__file__).with_name("stocks.csv")
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{message} (see --help)")
        self.exit(2)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for; ends the program with status 2 where that makes no sense."""
    parser = Parser(description="Compare share prices over the months that all of them have.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--resume", metavar="RUN_ID", help="go on with a run that was killed, stopped, or failed")
    which.add_argument("--run-id", metavar="RUN_ID", help="name of the new run; one is made up if you give none")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="prices to read (default: those of the example)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="report to write (default: report.md)")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="where runs are kept, e.g. postgresql://user@host/name (default: SPINE_DATABASE_URL or .spine/runs.db)",
    )
    parser.add_argument("--pause", metavar="SECONDS", type=_seconds, default=0.0, help="wait before every step")
    asked = parser.parse_args(arguments)
    _check_files(parser, asked)
    return asked


async def run(asked: argparse.Namespace) -> int:
    """Start the run, or go on with it; the exit status."""
    async with open_runner(asked) as (runner, progress):
        if asked.resume is not None:
            await _tell_what_is_done(runner, asked.resume)
            override = {"output": _absolute(asked.output)} if asked.output else None
            result = await runner.resume(asked.resume, params_override=override)
        else:
            run_id = asked.run_id if asked.run_id is not None else str(uuid.uuid4())
            _say(f"Run {run_id}\nIf it is interrupted: {_resume_line(asked, run_id)}\n")
            params = {"csv": _absolute(asked.csv or PRICES), "output": _absolute(asked.output or Path("report.md"))}
            result = await runner.execute(workflow, params=params, run_id=run_id)
            if result.status == "completed" and not progress.count:
                _say("  it had completed already; nothing was run again")
    return _tell_result(asked, result)


@asynccontextmanager
async def open_runner(asked: argparse.Namespace) -> AsyncIterator[tuple[WorkflowRunner, Progress]]:
    """A runner on the chosen database that tells of each step."""
    config = Config(database_url=asked.database)
    progress = Progress(asked.pause)
    async with WorkflowRunner(dispatcher=dispatcher, config=config, workflows=[workflow]) as runner:
        runner.middleware(progress)
        yield runner, progress


class Progress:
    """Middleware that waits before each step and prints a line after it."""

    def __init__(self, pause: float) -> None:
        self.count = 0
        self._pause = pause

    async def __call__(self, step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        await anyio.sleep(self._pause)
        started = perf_counter()
        result: StepResult = await next_fn(step, context)
        self.count += 1
        symbol = context.params.get("symbol")
        name = f"  {symbol} {step.name}" if symbol else step.name
        _say(f"  {result.status:<9}  {name:<18} {(perf_counter() - started) * 1000:8.1f} ms")
        return result


async def _tell_what_is_done(runner: WorkflowRunner, run_id: str) -> None:
    if (await runner.get_run(run_id)).status == "completed":
        return  # resume will say so
    done = [event.path or "" async for event in runner.events(run_id) if event.event_type == "step_completed"]
    told = textwrap.fill(", ".join(done) or "nothing", 100, initial_indent="  ", subsequent_indent="  ")
    _say(f"Run {run_id} goes on. Finished before, and not run again:\n{told}\n")


def _tell_result(asked: argparse.Namespace, result: WorkflowResult) -> int:
    if result.status != "completed":
        where = f" at {result.error_step}" if result.error_step else ""
        _complain(f"the run {result.status}{where}: {result.error or result.stop_reason}")
        print(f"Once that is mended: {_resume_line(asked, result.run_id)}", file=sys.stderr)
        return 1
    found: Any = result.context.get_output("aggregate")
    _say(f"\n{layout.as_text(found)}\n\nWritten to {result.context.get_output('write_report', 'path')}")
    return 0


def _resume_line(asked: argparse.Namespace, run_id: str) -> str:
    database = ["--database", asked.database] if asked.database else []
    return shlex.join([sys.executable, sys.argv[0], "--resume", run_id, *database])


def _check_files(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    if asked.resume is not None and asked.csv:
        parser.error("--csv cannot be given with --resume: a run keeps the prices that it was started with")
    if asked.csv and not asked.csv.is_file():
        parser.error(f"there is no file {asked.csv}")
    if asked.output and not asked.output.parent.is_dir():
        parser.error(f"there is no folder {asked.output.parent}")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to 3600")
    return seconds


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (a symlink may be meant)


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever was reading has gone, for instance `head`; that is no reason to fail a step
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str) -> None:
    print(f"report.py: {' '.join(text.split())}", file=sys.stderr)


def main() -> int:
    """The exit status: 0 done, 1 the run or its database failed, 2 the command line makes no sense."""
    asked = parsed()
    try:
        return anyio.run(run, asked)
    except SpineError as exc:
        _complain(str(exc))
        return 1
    except KeyboardInterrupt:
        _complain("interrupted; the line above goes on with the run")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
