"""The pages in a real Chromium: live updates, forms by keyboard, no scripts, narrow screens, and hostile texts."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from spine_async import RunStatus, WorkflowRunner
from tests.dashboard.board import PREFIX, Board, mounted
from tests.dashboard.flows import EVIL, HOSTILE, MAPPED, PLAIN, WAITING
from tests.dashboard.test_hostile import RUN_ID
from tests.service.services import PATIENCE
from tests.web.sites import serving_asgi

pytestmark = pytest.mark.anyio

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MILLISECONDS = PATIENCE * 1000
PAGES = ["/", "/runs", "/run?id=r", "/run/context?id=r", "/run/events?id=r", "/run/map?id=m&path=each"]
PAGES += ["/queues", "/schedules", "/signals", "/workers"]


@pytest.fixture(scope="module")
async def browser(anyio_backend: Any) -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on PATH; Debian's package is `chromium`")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@dataclass
class Visitor:
    """Opens pages of a server, and notes what a browser complains about."""

    browser: Browser
    address: str
    runner: WorkflowRunner
    problems: list[str] = field(default_factory=list)

    async def page(self, path: str, **options: Any) -> Page:
        context = await self.browser.new_context(**options)
        context.set_default_timeout(MILLISECONDS)
        page = await context.new_page()
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(f"dialog {dialog.message}"))
        await page.goto(self.address + path)
        return page

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.problems.append(text)


@pytest.fixture
async def visitor(browser: Browser, board: Board) -> AsyncIterator[Visitor]:
    app = Starlette(routes=[Mount(PREFIX, mounted(board.runner))])
    async with serving_asgi(app) as address:
        visitor = Visitor(browser, address + PREFIX, board.runner)
        yield visitor
        for context in browser.contexts:
            await context.close()
    assert visitor.problems == []


async def test_a_page_follows_its_run_and_keeps_what_is_written(visitor: Visitor, board: Board) -> None:
    handle = await board.started(WAITING, RunStatus.WAITING)
    page = await visitor.page("/run?id=r")
    await expect(page.locator("body.live")).to_be_attached(timeout=MILLISECONDS)
    await page.locator("summary", has_text="Fork").click()
    await page.get_by_label("Id of the new run").fill("half written")
    await handle.signal("approval", True)
    badge = page.locator(".runhead .badge")
    await expect(badge).to_have_text("completed", timeout=MILLISECONDS)
    await expect(page.locator(".events")).to_contain_text("workflow_completed")
    await expect(page.get_by_label("Id of the new run")).to_have_value("half written")
    await expect(page.locator("body.live")).to_have_count(0, timeout=MILLISECONDS)


async def test_a_signal_is_sent_by_keyboard(visitor: Visitor, board: Board) -> None:
    handle = await board.started(WAITING, RunStatus.WAITING)
    page = await visitor.page("/signals")
    for _ in range(40):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.name") == "value":
            break
    await page.keyboard.type('{"by": "Ada"}')
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_have_text("The signal is stored.", timeout=MILLISECONDS)
    assert (await handle.result(PATIENCE)).context.get_output("approval", "value") == {"by": "Ada"}


async def test_everything_works_without_scripts(visitor: Visitor, board: Board) -> None:
    handle = await board.started(WAITING, RunStatus.WAITING, "pay/1")
    await board.started(PLAIN, RunStatus.COMPLETED, "other")
    page = await visitor.page("/runs", java_script_enabled=False)
    await page.get_by_label("Run id begins with").fill("pay/")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.locator("table.runs tbody tr")).to_have_count(1)
    await page.get_by_role("link", name="pay/1").click()
    await expect(page.locator("svg.graph g.box")).to_have_count(3)
    await page.locator("summary", has_text="Stop").click()
    await page.get_by_label("Reason").fill("enough")
    await page.get_by_role("button", name="Stop this run").click()
    await expect(page.get_by_role("status")).to_have_text("The run was asked to stop.")
    assert (await handle.result(PATIENCE)).stop_reason == "enough"


async def test_pages_fit_narrow_screens_and_both_schemes(visitor: Visitor, board: Board) -> None:
    await board.started(WAITING, RunStatus.WAITING, "r")
    await board.started(MAPPED, RunStatus.COMPLETED, "m")
    await board.started(HOSTILE, RunStatus.WAITING, RUN_ID, say=EVIL)
    await board.runner.enqueue(PLAIN, queue="q" * 200, run_id="x" * 200, delay=3600)
    backgrounds = {}
    for scheme in ("light", "dark"):
        options = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
        page = await visitor.page("/", **options)
        for path in PAGES:
            await page.goto(visitor.address + path)
            width = await page.evaluate("document.scrollingElement.scrollWidth")
            assert width <= 360, (path, scheme, width)
        backgrounds[scheme] = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert backgrounds["light"] != backgrounds["dark"]


async def test_hostile_texts_run_nothing(visitor: Visitor, board: Board) -> None:
    await board.started(HOSTILE, RunStatus.WAITING, RUN_ID, say=EVIL)
    page = await visitor.page("/runs")
    await page.get_by_role("link", name=RUN_ID).click()
    await expect(page.locator("h1")).to_have_text(RUN_ID)
    await expect(page.locator("body.live")).to_be_attached(timeout=MILLISECONDS)
    await page.get_by_role("link", name="Context").click()
    await page.locator("details.change summary").first.click()
    await page.get_by_role("link", name="Events").last.click()
    await expect(page.locator(".events")).to_contain_text("workflow_started")
