"""Compare share prices durably: you can kill this program at any moment and continue with `--resume RUN_ID`.

python docs/examples/stocks/report.py
python docs/examples/stocks/report.py --pause 1      # slow enough to kill it in the middle
python docs/examples/stocks/report.py --resume RUN_ID
"""

from __future__ import annotations

import argparse
import logging
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
    """Reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        _print_error(f"{message} (see --help)")
        self.exit(2)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with status 2 if it is invalid."""
    parser = Parser(description="Compare share prices over the months that all of them have.")
    run_options = parser.add_mutually_exclusive_group()
    run_options.add_argument("--resume", metavar="RUN_ID", help="continue a run that was killed, stopped, or failed")
    run_options.add_argument("--run-id", metavar="RUN_ID", help="id of the new run (default: a generated id)")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="prices to read (default: the prices of the example)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="report to write (default: report.md)")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="where runs are stored, e.g. postgresql://user@host/name (default: SPINE_DATABASE_URL or .spine/runs.db)",
    )
    parser.add_argument("--pause", metavar="SECONDS", type=_seconds, default=0.0, help="wait before every step")
    options = parser.parse_args(arguments)
    _check_files(parser, options)
    return options


async def run(options: argparse.Namespace) -> int:
    """Start or resume the run, and return the exit status."""
    async with open_runner(options) as (runner, progress):
        if options.resume is not None:
            await _print_finished_steps(runner, options.resume)
            override = {"output": _absolute(options.output)} if options.output else None
            result = await runner.resume(options.resume, params_override=override)
        else:
            run_id = options.run_id if options.run_id is not None else str(uuid.uuid4())
            _say(f"Run {run_id}\nTo resume it: {_resume_line(options, run_id)}\n")
            params = {"csv": _absolute(options.csv or PRICES), "output": _absolute(options.output or Path("report.md"))}
            result = await runner.execute(workflow, params=params, run_id=run_id)
            if result.status == "completed" and not progress.count:
                _say("  the run had already completed; nothing was run again")
    return _print_result(options, result)


@asynccontextmanager
async def open_runner(options: argparse.Namespace) -> AsyncIterator[tuple[WorkflowRunner, Progress]]:
    """A runner on the chosen database that prints a line for each step."""
    config = Config(database_url=options.database)
    progress = Progress(options.pause)
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


async def _print_finished_steps(runner: WorkflowRunner, run_id: str) -> None:
    if (await runner.get_run(run_id)).status == "completed":
        return  # resume raises an error that says so
    done = [event.path or "" async for event in runner.events(run_id) if event.event_type == "step_completed"]
    steps = textwrap.fill(", ".join(done) or "nothing", 100, initial_indent="  ", subsequent_indent="  ")
    _say(f"Run {run_id} continues. These steps are finished and do not run again:\n{steps}\n")


def _print_result(options: argparse.Namespace, result: WorkflowResult) -> int:
    if result.status != "completed":
        where = f" at {result.error_step}" if result.error_step else ""
        _print_error(f"the run {result.status}{where}: {result.error or result.stop_reason}")
        print(f"After you fix this: {_resume_line(options, result.run_id)}", file=sys.stderr)
        return 1
    found: Any = result.context.get_output("aggregate")
    _say(f"\n{layout.as_text(found)}\n\nWritten to {result.context.get_output('write_report', 'path')}")
    return 0


def _resume_line(options: argparse.Namespace, run_id: str) -> str:
    database = ["--database", options.database] if options.database else []
    return shlex.join([sys.executable, sys.argv[0], "--resume", run_id, *database])


def _check_files(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.resume is not None and options.csv:
        parser.error("--csv cannot be given with --resume: a run keeps the prices that it started with")
    if options.csv and not options.csv.is_file():
        parser.error(f"there is no file {options.csv}")
    if options.output and not options.output.parent.is_dir():
        parser.error(f"there is no folder {options.output.parent}")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to 3600")
    return seconds


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (Path.resolve would replace symlinks)


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has exited, for instance `head`; this must not fail a step
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(text: str) -> None:
    print(f"report.py: {' '.join(text.split())}", file=sys.stderr)


def main() -> int:
    """Return the exit status: 0 success, 1 the run or its database failed, 2 the command line is invalid."""
    logging.getLogger("spine_async").addHandler(logging.NullHandler())  # this script reports failures itself
    options = parsed()
    try:
        return anyio.run(run, options)
    except SpineError as exc:
        _print_error(str(exc))
        return 1
    except KeyboardInterrupt:
        _print_error("interrupted; the command above resumes the run")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
