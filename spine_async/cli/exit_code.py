"""The exit codes of the command."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The result of the command for a script.

    `FAILED`: the run failed, or the command could not be carried out. `USAGE`: the command line must be changed.
    `STOPPED`: the run was stopped, or was interrupted by Ctrl-C. `INTERRUPTED`: Ctrl-C ended the command, and no run.
    """

    COMPLETED = 0
    FAILED = 1
    USAGE = 2
    STOPPED = 3
    INTERRUPTED = 130
