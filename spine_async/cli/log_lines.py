"""The lines of the log that a command prints on the standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from spine_async.telemetry.log_context import RunContextFilter


def configure_logs(level: int, *, as_json: bool, shows_tracebacks: bool, hides_failures: bool) -> None:
    """Print the entries of all loggers from this level on, the time in UTC.

    Args:
        level: The level.
        as_json: Whether each entry is a JSON object.
        shows_tracebacks: Whether entries have tracebacks.
        hides_failures: Whether entries about failed attempts of steps are left out, because the command shows them.
    """
    handler = _Handler()
    if hides_failures:
        handler.addFilter(lambda record: record.module != "failure_log")
    handler.setFormatter(_JsonLines() if as_json else _Lines(shows_tracebacks=shows_tracebacks))
    if level <= logging.INFO:  # entries of handlers name their run
        handler.addFilter(RunContextFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


@contextmanager
def without_entries_of(module: str) -> Iterator[None]:
    """Print no entries of this module inside the context."""

    def is_printed(record: logging.LogRecord) -> bool:
        return record.module != module

    handlers = logging.getLogger().handlers[:]
    for handler in handlers:
        handler.addFilter(is_printed)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_printed)


class _Handler(logging.Handler):
    """Writes to the standard error, which a live picture replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            self.handleError(record)


class _Lines(logging.Formatter):
    """Plain lines."""

    def __init__(self, *, shows_tracebacks: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime
        self._shows_tracebacks = shows_tracebacks

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if self._shows_tracebacks or record.exc_info is None else text.partition("\n")[0]


class _JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, object] = {
            "time": f"{at}.{record.msecs:03.0f}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("run_id", "step_path"):
            if getattr(record, name, "-") != "-":
                entry[name] = getattr(record, name)
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)
