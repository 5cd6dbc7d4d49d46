"""What is printed for an error: a text that says what to do, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from spine_async.cli.exit_code import ExitCode
from spine_async.errors import (
    DefinitionError,
    InvalidRunIdError,
    InvalidSignalError,
    MissingExtraError,
    RunBusyError,
    RunConflictError,
    RunError,
    RunNotFoundError,
    ScheduleNotFoundError,
    SerializationError,
    SpineError,
    StoreCapabilityError,
)


class CommandError(Exception):
    """The command cannot be carried out as it was given. Its text says what is wrong and what to do."""


def exit_code_of(error: Exception) -> ExitCode:
    """`USAGE` for an error that a change of the command line corrects, else `FAILED`."""
    return ExitCode.USAGE if isinstance(error, _USAGE_ERRORS) else ExitCode.FAILED


def text_of(error: Exception) -> str:
    """The text for a person at a terminal. The ways out are commands instead of calls."""
    for kind, text in _TEXTS.items():
        if isinstance(error, kind):
            return text(error)
    return str(error) or type(error).__name__


def document_of(error: Exception) -> dict[str, object]:
    """The JSON document for programs."""
    return {"error": {"type": type(error).__name__, "message": text_of(error)}}


def is_expected(error: BaseException) -> bool:
    """Whether the error is a message for the user and no fault of this program."""
    return isinstance(error, (SpineError, CommandError))


def _not_found(error: Exception) -> str:
    return f"run {cast('RunError', error).run_id!r} is not stored; `spine-async runs` lists the stored runs"


def _no_schedule(error: Exception) -> str:
    name = cast("ScheduleNotFoundError", error).schedule
    return (
        f"schedule {name!r:.200} is not stored; `spine-async schedules` lists the stored ones. "
        "A schedule is stored when a worker that has it starts"
    )


def _busy(error: Exception) -> str:
    busy = cast("RunBusyError", error)
    owner = f" by {busy.owner}" if busy.owner else ""
    return (
        f"run {busy.run_id!r} is being executed{owner}; `spine-async watch` follows it, and `spine-async stop` stops it"
    )


_TEXTS: Mapping[type[Exception], Callable[[Exception], str]] = {
    RunNotFoundError: _not_found,
    ScheduleNotFoundError: _no_schedule,
    RunBusyError: _busy,
    RunConflictError: lambda error: (
        str(error).replace("stop() it", "`spine-async stop` it").replace("pass force=True", "give --force")
    ),
    StoreCapabilityError: lambda error: str(error).replace("execute the run here with start()", "leave out --queue"),
}
_USAGE_ERRORS = (
    CommandError,
    DefinitionError,
    InvalidRunIdError,
    InvalidSignalError,
    MissingExtraError,
    RunNotFoundError,
    ScheduleNotFoundError,
    SerializationError,
)
