"""Runs child processes on one database, kills them, and checks the database and the diary."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from tests.chaos.checks import History, Reader, Stored, check_completed, require
from tests.chaos.diary import FileDiary
from tests.chaos.file_reader import FileReader
from tests.chaos.nursery import Nursery
from tests.chaos.redis_reader import RedisReader

KILLED = -int(signal.SIGKILL)


def reader_of(url: str) -> Reader | FileReader | RedisReader:
    """What reads the store at a URL from outside."""
    if url.startswith("redis:"):
        return RedisReader(url)
    return FileReader(Path(url.partition(":")[2])) if url.startswith("file:") else Reader(url)


class Arena:
    """Lets child processes execute runs on one database; after each child checks that no step was lost or ran twice."""

    def __init__(self, url: str, diary: Path, nursery: Nursery) -> None:
        self.url = url
        self.database = url.partition("+")[0].partition(":")[0]
        self.is_sqlite = url.startswith("sqlite")
        self.nursery = nursery
        self.history = History()
        self.children = 0
        self.kills = 0
        self._path = diary
        self._wanted: dict[str, object] = {}
        self._diary = FileDiary(diary)
        self._reader = reader_of(url)

    def job(self, runs: list[str], **settings: Any) -> dict[str, Any]:
        return {"url": self.url, "diary": str(self._path), "runs": runs, "story": "journey", **settings}

    def live(self, job: dict[str, Any], kill_after: float | None = None) -> int:
        """Start a child, wait until it ends, and check; returns its exit code."""
        self.children += 1
        code = self.nursery.wait(self.nursery.fork(job), kill_after=kill_after)
        self.kills += code == KILLED
        assert code in {0, KILLED}, self.errors()
        self.check()
        return code

    def wait_for_entry(self, what: str, patience: float = 30.0) -> None:
        """Wait until the diary has an entry of this kind; checks all other entries."""
        give_up_at = time.monotonic() + patience
        while time.monotonic() < give_up_at:
            entries = list(self._diary.entries())
            self.history.take(entries)
            if any(entry["what"] == what for entry in entries):
                return
            time.sleep(0.001)
        raise AssertionError(f"the diary has no entry {what!r} after {patience} s")

    def check(self) -> None:
        self.take()
        self.history.look(self.stored())

    def take(self) -> None:
        """Check the diary alone, while children live."""
        self.history.take(self._diary.entries())

    def stored(self) -> Stored:
        return self._reader.read()

    def ledger(self, run: str) -> list[str]:
        """What transactions of the run have written, without the id of the run."""
        if not isinstance(self._reader, Reader) or not self._reader.has_table("chaos_ledger"):
            return []
        rows = self._reader.rows(f"SELECT entry FROM chaos_ledger WHERE entry LIKE '{run}/%'")
        return [str(entry).removeprefix(f"{run}/") for (entry,) in rows]

    def visits_of(self, run: str) -> set[str]:
        """Paths of the stored visits of the run."""
        return {str(path) for run_id, path, *_ in self._reader.read().steps if run_id == run}

    def count_points(self, story: str, **settings: Any) -> list[str]:
        """Names of the failpoints of an undisturbed run."""
        assert self.live(self.job(["first"], story=story)) == 0  # only the first child creates the tables
        code = self.nursery.wait(self.nursery.fork(self.job(["counted"], story=story, count=True, **settings)))
        assert code == 0, self.errors()
        entries = list(self._diary.entries())
        self.history.take(entry for entry in entries if entry["what"] != "counted")
        (counted,) = [entry for entry in entries if entry["what"] == "counted"]
        points: list[str] = counted["points"]
        return points

    def check_same_memory(self, runs: list[str], story: str) -> None:
        """Check that all runs end as an undisturbed run does; executes those that have not ended."""
        if story not in self._wanted:
            self._wanted[story] = self._ends([f"undisturbed-{story}"], story)[0]
        for run, memory in zip(runs, self._ends(runs, story), strict=True):
            wanted = self._wanted[story]
            require(memory == wanted, f"{run} ended with {memory}, an undisturbed run with {wanted}")
        check_completed(self._reader.read(), runs)

    def _ends(self, runs: list[str], story: str) -> list[object]:
        if not {entry["run"] for entry in self.history.finished}.issuperset(runs):
            assert self.live(self.job(runs, story=story)) == 0
        ends = {entry["run"]: entry["memory"] for entry in self.history.finished}
        return [ends[run] for run in runs]

    def forget(self, runs: list[str]) -> None:
        """Delete runs that are checked completely, so that later checks stay fast."""
        self._reader.forget(runs)
        self.history.forget(runs)

    def errors(self) -> str:
        errors = Path(f"{self._path}.errors")
        return errors.read_text() if errors.exists() else "no traceback"

    def close(self) -> None:
        self._reader.close()
        self._diary.close()
