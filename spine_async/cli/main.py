"""The entry point of the command `spine-async`."""

from __future__ import annotations

import sys

from spine_async.cli.exit_code import ExitCode

_PARTS = frozenset({"typer", "rich", "shellingham", "click"})


def main() -> None:
    """Execute the command line of this process, and exit."""
    try:
        from spine_async.cli.verbs import app  # noqa: PLC0415 - needs an optional dependency
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in _PARTS:
            raise
        sys.stderr.write("spine-async needs optional dependencies: pip install 'spine-async[cli]'\n")
        raise SystemExit(ExitCode.USAGE) from None
    app(prog_name="spine-async")
