"""Queues, workers and waits for signals, as a runner shows them."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from spine_async import Queue, RunNotFoundError, Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async.storage import FileRunStore
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

MAIL = Queue("mail", concurrency=1)


async def note(context: WorkflowContext, config: Any) -> None:
    return None


class Gated:
    """A workflow whose step waits until the gate is open."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.flow = Workflow("gated", [Step.lambda_("work", self._work)])

    async def _work(self, context: WorkflowContext, config: Any) -> None:
        await self.gate.wait()


def asking(name: str, **options: Any) -> Workflow:
    return Workflow(name, [Step.lambda_("prepare", note), Step.wait_for_signal("approval", **options)])


async def test_queues_show_their_limits_and_the_numbers_of_their_runs(place: Place) -> None:
    gated = Gated()
    async with place.runner(queues=[MAIL, "idle"], workflows=[gated.flow]) as runner:
        await runner.enqueue_many(gated.flow, [], queue="mail")
        for number in range(3):
            await runner.enqueue(gated.flow, run_id=f"r{number}", queue="mail")
        await runner.enqueue(gated.flow, queue="mail", delay=3600)
        await runner.enqueue("unknown", queue="others", at=datetime.now(UTC) + timedelta(hours=1))
        await runner.start(gated.flow)

        async def is_begun() -> bool:
            by_name = {each.name: each for each in await runner.queues()}
            return (by_name["mail"].held, by_name[None].held) == (1, 1)

        await until(is_begun)
        records = await runner.queues()
        assert [each.name for each in records] == ["default", "idle", "mail", "others", None]
        mail = records[2]
        assert (mail.limits, mail.waiting, mail.delayed, mail.parked, mail.is_exact) == (MAIL, 2, 1, 0, True)
        assert mail.oldest_wait is not None
        assert 0 <= mail.oldest_wait < 300
        assert mail.oldest_due_at is not None
        others = records[3]
        assert (others.limits, others.waiting, others.delayed, others.listed_at) == (None, 0, 1, None)
        await until(lambda: is_listed(runner, "idle"))
        gated.gate.set()


async def is_listed(runner: WorkflowRunner, name: str) -> bool:
    return any(each.listed_at is not None for each in await runner.queues() if each.name == name)


async def test_workers_show_what_they_hold(place: Place) -> None:
    gated = Gated()
    async with place.runner(queues=[MAIL], workflows=[gated.flow]) as runner, place.runner(work=False) as looker:
        assert await looker.workers() == []
        await runner.enqueue(gated.flow, run_id="queued", queue="mail")
        await runner.start(gated.flow, run_id="started")

        async def are_held() -> bool:
            return sum(each.total for each in await looker.workers()) == 2

        await until(are_held)
        (worker,) = await looker.workers()
        assert worker.held == {None: 1, "mail": 1}
        assert (worker.pid, worker.is_gone, worker.is_this_process) == (os.getpid(), False, False)
        assert worker.host
        assert "/" not in worker.host
        assert [each.is_this_process for each in await runner.workers()] == [True]
        held = await looker.list_runs(owner=worker.owner)
        assert {each.run_id for each in held} == {"queued", "started"}
        assert {each.owner for each in held} == {worker.owner}
        gated.gate.set()


async def test_waits_for_signals_have_their_names_and_deadlines(place: Place) -> None:
    plain, limited = asking("plain"), asking("limited", signal="ok", timeout=3600)
    each = Workflow("each", [Step.map("each", items=range(2), iterator=asking("item"))])
    nap = Workflow("nap", [Step.wait("nap", 3600)])
    async with place.runner(workflows=[plain, limited, each, nap], config={"park_after": 0.0}) as runner:
        for flow in (nap, plain, limited, each):
            await runner.start(flow, run_id=flow.name)

        async def are_waiting() -> bool:
            return len((await runner.signal_waits()).waits) == 4

        await until(are_waiting)
        found = await runner.signal_waits()
        assert found.cursor is None
        by_path = {(wait.run.run_id, wait.path): wait for wait in found.waits}
        assert set(by_path) == {
            ("plain", "approval"),
            ("limited", "approval"),
            ("each", "each[0]/approval"),
            ("each", "each[1]/approval"),
        }
        until_times = {name: by_path[name, "approval"].until for name in ("plain", "limited")}
        assert until_times["plain"] is None
        assert until_times["limited"] is not None
        assert by_path["limited", "approval"].name == "ok"
        item = by_path["each", "each[1]/approval"]
        assert item.run.workflow_name == "each"
        await runner.signal("each", item.path, True)

        async def is_taken() -> bool:
            return [each.path for each in await runner.signal_waits_of("each")] == ["each[0]/approval"]

        await until(is_taken)
        assert await runner.signal_waits_of("nap") == []
        with pytest.raises(RunNotFoundError):
            await runner.signal_waits_of("unknown")


async def test_the_waits_are_listed_page_by_page(place: Place) -> None:
    flow = asking("asks")
    async with place.runner(workflows=[flow], config={"park_after": 0.0}) as runner:
        for number in range(5):
            await runner.start(flow, run_id=f"r{number}")

        async def are_waiting() -> bool:
            return len((await runner.signal_waits()).waits) == 5

        await until(are_waiting)
        seen, cursor = [], None
        while True:
            page = await runner.signal_waits(limit=2, cursor=cursor)
            seen += [wait.run.run_id for wait in page.waits]
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == ["r4", "r3", "r2", "r1", "r0"]


async def test_a_store_without_queues_shows_nothing(tmp_path: Any) -> None:
    async with WorkflowRunner(store=FileRunStore(tmp_path)) as runner:
        assert [(each.name, each.waiting) for each in await runner.queues()] == [("default", 0), (None, 0)]
        assert await runner.workers() == []
        assert (await runner.signal_waits()).waits == ()


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1001}, {"cursor": "nonsense"}])
async def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        await WorkflowRunner(checkpoint_enabled=False).signal_waits(**wrong)
