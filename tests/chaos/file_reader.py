"""Reads the logs of a file store from outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from spine_async.storage.file.folder import LOG, RunFolder, folder_name
from tests.chaos.checks import Stored, read_memory


class FileReader:
    """Reads a folder of runs as `Reader` reads a database.

    Args:
        base: Folder of the store.
    """

    def __init__(self, base: Path) -> None:
        self._base = base

    def read(self) -> Stored:
        stored = Stored({}, [], [])
        for log in self._base.glob(f"[0-9a-f]*/{LOG}"):
            first = log.read_bytes().partition(b"\n")
            if not first[1]:
                continue  # its creation was never acknowledged
            run_id = json.loads(first[0])["run"]["run_id"]
            with RunFolder(self._base, run_id, timeout=10, is_synced=False).reading() as store:
                found = read_memory(store)
            stored.runs |= found.runs
            stored.steps += found.steps
            stored.events += found.events
        return stored

    def forget(self, runs: Sequence[str]) -> None:
        """Remove the folders of runs, without telling the index."""
        for run_id in runs:
            shutil.rmtree(self._base / folder_name(run_id))

    def close(self) -> None:
        """Do nothing."""
