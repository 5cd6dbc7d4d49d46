"""Each page and each form on each store: a page says what its store cannot do, and is never an error of the server."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import pytest

from spine_async import (
    CorruptRecordError,
    RunFilters,
    SchemaVersionError,
    StoreError,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.dashboard.pages.runs import RUN_FILTERS
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore
from tests.dashboard.board import Board
from tests.dashboard.conftest import CONFIG
from tests.dashboard.flows import FAILING, PLAIN, WAITING
from tests.plain_http import NO_CERTIFICATES
from tests.stores import STORES, store_of

TIME = "2026-01-31T09:30"
VALUES = {
    "status": "failed",
    "partition": '{"day":1}',
    **dict.fromkeys(("since", "until", "ended_since", "ended_until"), TIME),
}
PAGES = (
    "/",
    *(f"/runs?{name}={VALUES.get(name, 'x')}" for name in RUN_FILTERS),
    "/run?id=failed",
    "/run/context?id=failed",
    "/run/events?id=failed",
    "/run/map?id=failed&path=first",
    "/workers",
)
"""Pages that every store can fill."""

SAYING = {"/queues": "keeps no queues", "/signals": "stores no signals"}
"""Pages that say what the store lacks."""

FORMS = {
    "/run/signal": ({"id": "failed", "name": "approval"}, "stores no signals"),
    "/run/fork": ({"id": "done", "path": "second"}, "cannot fork runs"),
    "/schedules/pause": ({"name": "nightly"}, "keeps no schedules"),
    "/schedules/resume": ({"name": "nightly"}, "keeps no schedules"),
    "/schedules/trigger": ({"name": "nightly"}, "keeps no schedules"),
}
"""Forms that need more than every store has."""


def test_the_page_of_runs_has_the_filters_of_the_runner() -> None:
    assert set(RUN_FILTERS.values()) == set(RunFilters.__annotations__)


@pytest.mark.parametrize("kind", STORES)
async def test_each_page_answers_on_each_store(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    runner = WorkflowRunner(
        store=store_of(kind, tmp_path, request),
        config=WorkflowRunnerConfig(**CONFIG),
        workflows=[PLAIN, FAILING, WAITING],
    )
    async with runner, httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
        board = Board(runner, client)
        await runner.execute(FAILING, run_id="failed")
        await runner.execute(PLAIN, run_id="done")
        for path in PAGES:
            answer = await board.get(path)
            assert answer.status_code == 200, (path, answer.text)
        for path, text in SAYING.items():
            page = await board.page(path)
            assert (f"{runner.store_name} {text}" in page) == (kind != "memory"), path
        schedules = await board.get("/schedules")
        assert schedules.status_code == (200 if kind == "memory" else 501)
        for path, (form, text) in FORMS.items():
            answer = await board.post(path, form)
            if kind == "memory":
                assert answer.status_code in {303, 404}, (path, answer.text)
            else:
                assert answer.status_code == 501, (path, answer.text)
                assert f"{runner.store_name} {text}" in answer.text
        for path in ("/run/stop", "/run/resume"):
            assert (await board.post(path, {"id": "failed"})).status_code == 303, path


async def test_a_store_that_cannot_be_reached_is_no_lack_of_the_store(caplog: pytest.LogCaptureFixture) -> None:
    config = WorkflowRunnerConfig(**CONFIG, database_url="postgresql://user:secret@127.0.0.1:1/db", store_timeout=5)
    runner = WorkflowRunner(work=False, config=config, workflows=[PLAIN])
    async with runner, httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
        board = Board(runner, client)
        caplog.clear()
        for path in ("/", "/runs", "/run?id=r", "/run/events?id=r", "/queues", "/run/live?id=r"):
            answer = await board.get(path)
            assert answer.status_code == 503, (path, answer.text)
            assert "The store of the runs is not available" in answer.text
            assert "the store cannot be reached at present; try again" in answer.text
            assert "127.0.0.1" not in answer.text
            assert answer.headers["retry-after"] == "1"
        answer = await board.post("/run/stop", {"id": "r"})
        assert answer.status_code == 503, answer.text
    logged = [each for each in caplog.records if "a page of the dashboard" in each.getMessage()]
    assert len(logged) == 7
    assert all("127.0.0.1:1" in each.getMessage() and "secret" not in each.getMessage() for each in logged)


@pytest.mark.parametrize(
    "error",
    [
        StoreError("db.internal refused the statement"),
        CorruptRecordError("db.internal"),
        SchemaVersionError(9, 3, "upgrade db.internal"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_fault_of_the_store_is_an_error_of_the_server(
    error: StoreError, caplog: pytest.LogCaptureFixture
) -> None:
    store = FaultInjectingStore(MemoryRunStore())
    runner = WorkflowRunner(store=store, work=False, config=WorkflowRunnerConfig(**CONFIG))
    async with runner, httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
        store.fail("runs", call=store.calls["runs"] + 1, error=error)
        with caplog.at_level(logging.ERROR, logger="spine_async"):
            answer = await Board(runner, client).get("/runs")
    assert answer.status_code == 500
    assert "This page could not be made" in answer.text
    assert "db.internal" not in answer.text
    assert "db.internal" in caplog.text
