"""Reports the runs that a listing leaves out because they cannot be read."""

from __future__ import annotations

import logging

from spine_async.errors import CorruptRecordError

_known: set[str] = set()
_log = logging.getLogger("spine_async")


def report_unreadable(error: CorruptRecordError) -> None:
    """Warn of a run that cannot be read, once in this process: workers may list it twice per second."""
    text = str(error)
    _log.log(logging.DEBUG if text in _known else logging.WARNING, "%s; the listing leaves it out", text)
    _known.add(text)
