"""A log of what happened, in order, written by processes that may be killed at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

Entry = dict[str, Any]


class Diary(Protocol):
    """Takes entries: `what` and further facts."""

    def write(self, what: str, run: str, **facts: object) -> None: ...


class FileDiary:
    """Entries of many processes, with the process id. Each is one appending write, so none is torn or lost."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._read = 0

    def write(self, what: str, run: str, **facts: object) -> None:
        entry = {"what": what, "run": run, "pid": os.getpid(), **facts}
        os.write(self._file, (json.dumps(entry) + "\n").encode())

    def entries(self) -> Iterator[Entry]:
        """Entries since the last call."""
        text = b""
        while chunk := os.pread(self._file, 1 << 20, self._read + len(text)):
            text += chunk
        whole = text[: text.rfind(b"\n") + 1]  # the last line may be incomplete
        self._read += len(whole)
        return iter([json.loads(line) for line in whole.splitlines()])

    def close(self) -> None:
        os.close(self._file)


class ListDiary:
    """Entries of this process."""

    def __init__(self) -> None:
        self.kept: list[Entry] = []

    def write(self, what: str, run: str, **facts: object) -> None:
        self.kept.append({"what": what, "run": run, **facts})

    def entries(self) -> Iterator[Entry]:
        taken, self.kept = self.kept, []
        return iter(taken)
