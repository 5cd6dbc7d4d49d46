"""Limits of queues, as the runners of several processes see them."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from spine_async import (
    DefinitionError,
    Enqueued,
    Queue,
    QueueDeadlockError,
    RateLimit,
    RunStatus,
    Step,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from spine_async._engine.service import queue_listing
from tests.service.flows import Config
from tests.service.places import Place
from tests.service.services import until

PATIENT = {"poll_interval": 30.0}
"""So that a test which waits for polling fails."""


class Office:
    """A workflow whose runs wait until they are let go, and how many of them are at work."""

    def __init__(self) -> None:
        self.at_work: list[str] = []
        self.most = 0
        self.begun: list[str] = []
        self.may_end = anyio.Semaphore(0)
        self.flow = Workflow("office", [Step.lambda_("work", self._work)])

    async def _work(self, context: WorkflowContext, config: Config) -> None:
        self.begun.append(context.run_id)
        self.at_work.append(context.run_id)
        self.most = max(self.most, len(self.at_work))
        await self.may_end.acquire()
        self.at_work.remove(context.run_id)

    def let_go(self, runs: int) -> None:
        for _ in range(runs):
            self.may_end.release()


@pytest.fixture
def office() -> Office:
    return Office()


async def enqueued(runner: WorkflowRunner, flow: Workflow, count: int, key: str | None = None) -> list[Any]:
    """Enqueue runs in `mail`; their handles."""
    prefix = key or "r"
    runs = [Enqueued(run_id=f"{prefix}{number}", key=key) for number in range(count)]
    return await runner.enqueue_many(flow, runs, queue="mail")


async def all_completed(handles: list[Any]) -> None:
    with anyio.fail_after(20):
        for handle in handles:
            assert (await handle.result()).status is RunStatus.COMPLETED


async def test_concurrency_holds_over_runners_and_a_free_slot_is_used_at_once(place: Place, office: Office) -> None:
    queues = [Queue("mail", concurrency=2)]
    async with (
        place.runner(workflows=[office.flow], queues=queues, config={"poll_interval": 5.0}) as one,
        place.runner(workflows=[office.flow], queues=queues, config={"poll_interval": 5.0}),
    ):
        handles = await enqueued(one, office.flow, 6)
        for number in range(3, 7):
            await until(lambda: len(office.at_work) == 2)
            office.let_go(1)
            await until(lambda number=number: len(office.begun) == number)
        office.let_go(2)
        await all_completed(handles)
    assert office.most == 2


async def test_each_runner_respects_per_process(place: Place, office: Office) -> None:
    queues = [Queue("mail", per_process=1)]
    async with (
        place.runner(workflows=[office.flow], queues=queues) as one,
        place.runner(workflows=[office.flow], queues=queues),
    ):
        handles = await enqueued(one, office.flow, 4)
        await until(lambda: len(office.at_work) == 2)
        office.let_go(4)
        await all_completed(handles)
    assert office.most == 2


async def test_per_key_lets_other_keys_pass(place: Place, office: Office) -> None:
    async with place.runner(workflows=[office.flow], queues=[Queue("mail", per_key=1)]) as runner:
        handles = await enqueued(runner, office.flow, 3, key="a")
        handles += await enqueued(runner, office.flow, 1, key="b")
        await until(lambda: sorted(office.at_work) == ["a0", "b0"])
        office.let_go(4)
        await all_completed(handles)
    assert office.most == 2


async def test_a_worker_sleeps_until_the_rate_has_room(place: Place, office: Office) -> None:
    office.let_go(5)
    began = time.monotonic()
    queues = [Queue("mail", rate=RateLimit(2, per=0.3))]
    async with place.runner(workflows=[office.flow], queues=queues, config=PATIENT) as runner:
        await all_completed(await enqueued(runner, office.flow, 5))
    assert time.monotonic() - began >= 0.59, "of five runs the last begins two windows after the first"


async def test_a_parked_run_gives_up_its_slot(place: Place, office: Office) -> None:
    asks = Workflow("asks", [Step.wait_for_signal("answer")])
    config, queues = {"park_after": 0.05}, [Queue("mail", concurrency=1)]
    async with place.runner(workflows=[office.flow, asks], queues=queues, config=config) as runner:
        waiting = [await runner.enqueue(asks, run_id=f"w{number}", queue="mail") for number in range(3)]
        (held,) = await enqueued(runner, office.flow, 1)
        await until(lambda: office.at_work == ["r0"])
        for handle in waiting:
            await handle.signal("answer", 1)
        assert await waiting[0].status() is RunStatus.WAITING, "it waits for the slot"
        office.let_go(1)
        await all_completed([held, *waiting])


async def test_execute_of_a_queued_run_waits_for_a_slot(place: Place, office: Office) -> None:
    queues = [Queue("mail", concurrency=1)]
    async with (
        place.runner(workflows=[office.flow], queues=queues) as one,
        place.runner(queues=queues, work=False) as two,
    ):
        handles = await enqueued(one, office.flow, 1)
        await until(lambda: office.at_work)
        handles.append(await two.enqueue(office.flow, run_id="x", queue="mail"))
        async with anyio.create_task_group() as group:
            group.start_soon(two.execute, office.flow)  # of no queue, so it waits for no slot
            await until(lambda: len(office.at_work) == 2)
            with anyio.move_on_after(0.3):
                await two.execute(office.flow, run_id="x")
            assert "x" not in office.begun
            office.let_go(3)
            assert (await two.execute(office.flow, run_id="x")).status is RunStatus.COMPLETED
        await all_completed(handles)
    assert office.begun.count("x") == 1


async def test_resume_of_a_failed_run_waits_for_a_slot(place: Place, office: Office) -> None:
    state = {"fails": True}

    async def fail_once(context: WorkflowContext, config: Config) -> None:
        if state.pop("fails", False):
            raise ValueError("once")

    fails = Workflow("fails", [Step.lambda_("step", fail_once)])
    async with place.runner(workflows=[office.flow, fails], queues=[Queue("mail", concurrency=1)]) as runner:
        failed = await runner.enqueue(fails, run_id="f", queue="mail")
        assert (await failed.result(timeout=20)).status is RunStatus.FAILED
        (held,) = await enqueued(runner, office.flow, 1)
        await until(lambda: office.at_work)
        with anyio.move_on_after(0.3):
            await runner.resume("f")
        assert await failed.status() is RunStatus.FAILED
        office.let_go(1)
        with anyio.fail_after(20):
            assert (await runner.resume("f")).status is RunStatus.COMPLETED
        await all_completed([held])


@pytest.mark.parametrize(
    ("limits", "child_key", "is_refused"),
    [({"concurrency": 5}, None, True), ({"per_key": 1}, "k", True), ({"per_key": 1}, "other", False)],
    ids=["concurrency", "same key", "other key"],
)
@pytest.mark.parametrize("how", ["result", "execute", "resume"])
async def test_a_step_cannot_wait_for_a_run_of_its_own_limited_queue(
    limits: dict[str, Any], child_key: str | None, how: str, *, is_refused: bool
) -> None:
    errors: list[QueueDeadlockError] = []

    async def wait_for_child(context: WorkflowContext, config: Config) -> None:
        handle = await runner.enqueue(child, run_id="child", queue="mail", key=child_key)
        try:
            if how == "result":
                await handle.result()
            elif how == "execute":
                await runner.execute(child, run_id="child")
            elif is_refused:
                await runner.resume("child")
        except QueueDeadlockError as exc:
            errors.append(exc)

    child = Workflow("child", [Step.lambda_("step", lambda context, config: None)])
    parent = Workflow("parent", [Step.lambda_("step", wait_for_child)])
    queues = [Queue("mail", **limits)]
    async with Place(None).runner(workflows=[parent, child], queues=queues) as runner:
        await all_completed([await runner.enqueue(parent, queue="mail", key="k")])
        await all_completed([runner.handle("child")])
    assert [(each.run_id, each.queue) for each in errors] == ([("child", "mail")] if is_refused else [])


async def test_names_stand_for_queues_without_limits(place: Place, office: Office) -> None:
    office.let_go(2)
    async with place.runner(workflows=[office.flow], queues=["mail", Queue("print")]) as runner:
        await all_completed([await runner.enqueue(office.flow, queue=name) for name in ("mail", "print")])
    with pytest.raises(DefinitionError, match="'mail' is given twice"):
        place.runner(queues=["mail", Queue("mail", concurrency=1)])


async def test_a_queue_that_nobody_lists_is_warned_of_once(
    place: Place, office: Office, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_listing, "_FIRST_LISTING", 0.0)
    monkeypatch.setattr(queue_listing, "_LIST_EVERY", 0.01)
    early = datetime.now(UTC) - timedelta(seconds=90)
    caplog.set_level(logging.WARNING)
    async with place.runner(workflows=[office.flow], config={"poll_interval": 0.01}) as runner:
        await runner.enqueue(office.flow, queue="forgotten", at=early)
        await runner.enqueue(office.flow, queue="young")
        await until(lambda: "forgotten" in caplog.text)
        await anyio.sleep(0.1)
    assert caplog.text.count("runs wait in queue 'forgotten', which no working runner has listed") == 1
    assert "young" not in caplog.text
