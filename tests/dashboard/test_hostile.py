"""Ids, names, errors and values full of HTML and JavaScript stay texts: in pages, attributes, addresses and SVG."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from spine_async import RunStatus, Step, Workflow
from spine_async.views.graph import graph_of
from spine_async.views.svg import bar_svg, graph_svg, strip_svg
from tests.dashboard.board import PREFIX, Board, Elements
from tests.dashboard.flows import EVIL, EVIL_STEP, HOSTILE, note

pytestmark = pytest.mark.anyio

RUN_ID = f"../a//b?c=d#e&f%2F {EVIL}"
PATHS = ["/", "/runs", "/signals", "/schedules", "/queues", "/workers"]
OF_RUN = ["/run", "/run/context", "/run/events", "/run/map"]
OWN_SCRIPTS = {"htmx.min.js", "spine.js"}


def check(text: str) -> Elements:
    """No element, attribute or address of the page comes from a user."""
    page = Elements(text)
    scripts = page.named("script")
    assert {str(each["src"]).partition("?")[0].rpartition("/")[2] for each in scripts} <= OWN_SCRIPTS
    assert len(scripts) in {0, 2}
    assert all(set(each) == {"src", "defer"} for each in scripts)
    for name, attributes in page.found:
        assert not [each for each in attributes if each.startswith("on") or each == "style"], (name, attributes)
        assert name not in {"iframe", "object", "embed", "style", "base", "foreignobject"}
    images = [str(each["src"]) for each in page.named("img")]
    assert all(each.startswith(f"{PREFIX}/static/icon.svg") for each in images)
    for link in page.links():
        assert link.startswith((f"{PREFIX}/", "#")), link
    return page


async def hostile_run(board: Board) -> None:
    await board.started(HOSTILE, RunStatus.WAITING, RUN_ID, say=EVIL, **{EVIL: EVIL})


async def test_pages_show_hostile_texts_as_they_are(board: Board) -> None:
    await hostile_run(board)
    await board.runner.enqueue(HOSTILE, run_id="queued", queue=EVIL, key=EVIL, delay=3600)
    for path in PATHS:
        check(await board.page(path))
    for path in OF_RUN:
        page = check(await board.page(path, id=RUN_ID, path=f"each{EVIL_STEP}"))
        assert RUN_ID in page.texts
    page = check(await board.page("/run", id=RUN_ID))
    assert EVIL_STEP in page.texts
    check(await board.page("/runs", workflow=EVIL, queue=EVIL, key=EVIL, prefix=RUN_ID, owner=EVIL, parent=EVIL))


async def test_addresses_lead_to_the_run_whatever_its_id_is(board: Board) -> None:
    await hostile_run(board)
    page = Elements(await board.page("/runs"))
    address = next(urlsplit(link) for link in page.links() if link.startswith(f"{PREFIX}/run?"))
    assert parse_qs(address.query)["id"] == [RUN_ID]
    answer = await board.client.get(f"http://board.test{address.path}?{address.query}")
    assert answer.status_code == 200
    assert RUN_ID in Elements(answer.text).texts
    live = str(Elements(answer.text).named("body")[0]["data-live"])
    assert parse_qs(urlsplit(live).query)["id"] == [RUN_ID]
    signalled = await board.post("/run/signal", {"id": RUN_ID, "name": EVIL_STEP, "value": "1"})
    assert parse_qs(urlsplit(signalled.headers["location"]).query)["id"] == [RUN_ID]


async def test_errors_quote_hostile_texts_as_texts(board: Board) -> None:
    for path, query in (
        ("/run", {"id": EVIL}),
        ("/runs", {"status": EVIL}),
        ("/run/events", {"id": "x", "after": EVIL}),
    ):
        answer = await board.get(path, **query)
        assert answer.status_code in {400, 404}
        check(answer.text)
    answer = await board.post("/run/signal", {"id": EVIL, "name": EVIL, "value": EVIL})
    check(answer.text)


async def test_a_prefix_with_special_characters(board: Board) -> None:
    await hostile_run(board)
    answer = await board.client.get(f"http://board.test{PREFIX}/", headers={"Host": '"><script>alert(1)</script>'})
    check(answer.text)


def test_pictures_escape_texts() -> None:
    flow = Workflow(
        "w",
        [
            Step.lambda_(EVIL_STEP, note),
            Step.map("m", items=[1], iterator=Workflow(steps=[Step.lambda_(EVIL_STEP, note)])),
        ],
    )
    states = {EVIL_STEP: EVIL}
    svg = graph_svg(graph_of(flow.plan()), states, lambda path: f"/x?{EVIL}", EVIL)
    for text in (svg, bar_svg(0, 1, 1, EVIL), strip_svg([], 0, 3, lambda index: EVIL)):
        page = Elements(text)
        assert not page.named("script")
        assert not page.named("img")
        assert not [attributes for _, attributes in page.found if any(name.startswith("on") for name in attributes)]
