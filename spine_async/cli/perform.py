"""Executes one command: its errors become texts and exit codes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

import anyio

from spine_async.cli.exit_code import ExitCode
from spine_async.cli.log_lines import configure_logs
from spine_async.cli.output import Output
from spine_async.cli.problem import document_of, exit_code_of, is_expected, text_of

Action = Callable[[Output], Awaitable[int]]


def perform(
    action: Action,
    *,
    as_json: bool,
    logs: int = logging.WARNING,
    shows_tracebacks: bool = False,
    hides_failures: bool = False,
) -> NoReturn:
    """Execute a command in an event loop, and end with its exit code.

    Args:
        action: The command; returns its exit code.
        as_json: Whether it prints JSON.
        logs: The level from which entries of the log are printed.
        shows_tracebacks: Whether these entries have tracebacks.
        hides_failures: Whether entries about failed attempts of steps are left out, because the command shows them.

    Raises:
        SystemExit: Always.
    """
    output = Output(is_json=as_json)
    configure_logs(
        logs,
        as_json=as_json and logs <= logging.INFO,
        shows_tracebacks=shows_tracebacks,
        hides_failures=hides_failures,
    )
    try:
        code = anyio.run(action, output)
    except KeyboardInterrupt:
        output.note("interrupted")
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of the output has ended
        code = ExitCode.COMPLETED
    except SystemExit as exc:  # of a handler; the engine has released its run
        output.note(f"error: a step has raised SystemExit({exc.code!r}), which ends the process; its run is due again")
        code = ExitCode.FAILED
    except Exception as exc:
        error = _in_groups(exc)
        if not is_expected(error):
            raise
        code = _report(error, output)
    raise SystemExit(int(code))


def _in_groups(error: Exception) -> Exception:
    """The error inside of groups of one: a task group wraps what is raised inside of it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _report(error: Exception, output: Output) -> ExitCode:
    if output.is_json:
        output.json(document_of(error))
    else:
        output.note(f"error: {text_of(error)}")
    return exit_code_of(error)
