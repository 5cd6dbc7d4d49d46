"""A Python with an outdated SQLite gets an error that says what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from spine_async import Step, StoreError, Workflow, WorkflowRunner, WorkflowRunnerConfig


@pytest.mark.anyio
async def test_an_old_sqlite_is_refused_before_a_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=f"sqlite:///{tmp_path}/runs.db"))
    with pytest.raises(StoreError, match=r"SQLite 3\.38 or later is required, but this Python has 3\.34\.1"):
        await runner.execute(Workflow("w", [Step.lambda_("a", lambda context, config: None)]))
    assert list(tmp_path.iterdir()) == []
