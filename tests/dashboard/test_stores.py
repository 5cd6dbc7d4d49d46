"""Each page and each form on each store: a page says what its store cannot do, and is never an error of the server."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from spine_async import RunFilters, WorkflowRunner, WorkflowRunnerConfig
from spine_async.dashboard.pages.runs import RUN_FILTERS
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
