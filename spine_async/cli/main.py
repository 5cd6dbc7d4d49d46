"""The entry point of the command `spine-async`."""

from __future__ import annotations

import gc
import os
import sys
import threading

from spine_async.cli.exit_code import ExitCode

_PARTS = frozenset({"typer", "rich", "shellingham", "click"})
_COLLECT_AFTER = 10_000
"""Number of new objects after which garbage is collected. With Python's threshold the imports take 5 % longer."""


def main() -> None:
    """Execute the command line of this process, and exit."""
    try:
        _main()
    except KeyboardInterrupt:  # before the command began
        raise SystemExit(ExitCode.INTERRUPTED) from None


def _main() -> None:
    gc.set_threshold(_COLLECT_AFTER)
    try:
        from spine_async.cli.verbs import app  # noqa: PLC0415 - needs an optional dependency
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in _PARTS:
            raise
        sys.stderr.write("spine-async needs optional dependencies: pip install 'spine-async[cli]'\n")
        raise SystemExit(ExitCode.USAGE) from None
    try:
        app(prog_name="spine-async")
    except SystemExit as exc:
        _leave_threads(exc.code)
        raise


def _leave_threads(code: object) -> None:
    """End the process of a stopped run although threads of its steps are still running; Python would wait for them."""
    if code in {ExitCode.STOPPED, ExitCode.INTERRUPTED} and any(map(_is_waited_for, threading.enumerate())):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(str(code)))


def _is_waited_for(thread: threading.Thread) -> bool:
    return not thread.daemon and thread is not threading.current_thread()
