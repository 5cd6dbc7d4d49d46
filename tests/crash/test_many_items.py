"""A map of 2,000 items on SQLite, killed half-way: the resume runs only the unfinished items."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.conftest import Processes, plain_query
from tests.crash.forks import Forks
from tests.crash.programs import AT_ONCE, MANY


@pytest.mark.slow
def test_only_the_unfinished_items_run(sqlite_url: str, tmp_path: Path, forks: Forks) -> None:
    processes = Processes(sqlite_url, tmp_path, forks)
    processes.dies("many", "--die-at", str(MANY // 2))
    before = processes.executed()
    rows = plain_query(sqlite_url, "SELECT path FROM core_workflow_checkpoints WHERE run_id = 'r1'")
    finished = {path.removeprefix("each[").removesuffix("]/item") for (path,) in rows}
    assert MANY // 2 - AT_ONCE <= len(finished) <= len(before) == MANY // 2

    processes.completes("many", "--resume")

    again = Counter(processes.executed()[len(before) :])
    assert again == {str(index): 1 for index in range(MANY) if str(index) not in finished}
    (found,) = plain_query(sqlite_url, "SELECT output FROM core_workflow_steps WHERE path = 'each'")
    output = json.loads(found[0])
    assert output["results"] == [{"item": index} for index in range(MANY)]
    assert (output["succeeded"], output["failed"], output["errors"]) == (MANY, 0, [])
