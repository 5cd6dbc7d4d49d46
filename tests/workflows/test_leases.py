"""Owners renew leases independently of other calls of the store, and stop when a lease ends by their own clock."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Claim, Renewal
from spine_async.errors import LeaseLostError, StoreUnavailableError
from spine_async.ports import CommitOutcome
from spine_async.storage import MemoryRunStore

TTL = 0.6


class Store(MemoryRunStore):
    """Renewals and commits that fail, hang or take long.

    Attributes:
        renewals: When renewals arrived.
        groups: The runs of each commit.
    """

    def __init__(self, *, renewal: str = "works", commit_seconds: float = 0.0) -> None:
        super().__init__()
        self.renewal = renewal
        self.commit_seconds = commit_seconds
        self.renewals: list[float] = []
        self.groups: list[list[str]] = []

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        self.renewals.append(time.monotonic())
        if self.renewal == "hangs":
            await anyio.sleep_forever()
        if self.renewal == "fails":
            raise StoreUnavailableError("the test's store is away")
        if self.renewal == "is locked":
            return [Renewal(is_held=True, is_extended=False) for _ in claims]
        return await super().renew(claims, ttl)

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        self.groups.append([change.run_id for change in changes])
        await anyio.sleep(self.commit_seconds)
        return await super().commit(changes)


def _runner(store: MemoryRunStore, **config: Any) -> WorkflowRunner:
    return WorkflowRunner(store=store, config=WorkflowRunnerConfig(**{"lease_ttl": TTL, **config}))


def _sleeping(seconds: float, ended: list[object]) -> Workflow:
    async def sleep(context: WorkflowContext, config: object) -> None:
        try:
            await anyio.sleep(seconds)
        finally:
            ended.append(context.cancel_reason)

    return Workflow("sleeping", [Step.lambda_("sleep", sleep)])


async def _execute_many(runner: WorkflowRunner, workflow: Workflow) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(partial(runner.execute, workflow, run_id=f"r{number}"))


@pytest.mark.parametrize("renewal", ["hangs", "fails", "is locked"])
async def test_an_owner_that_cannot_renew_stops_when_its_lease_ends(renewal: str) -> None:
    ended: list[object] = []
    began = time.monotonic()
    with pytest.raises(LeaseLostError, match=r"its lease of 0\.6 s could not be renewed before it ended"):
        await _runner(Store(renewal=renewal)).execute(_sleeping(60, ended), run_id="r")
    assert ended == ["lease_lost"]
    assert TTL <= time.monotonic() - began < 10


async def test_a_failed_renewal_is_retried_before_the_lease_ends(caplog: pytest.LogCaptureFixture) -> None:
    class Recovering(Store):
        async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
            self.renewal = "fails" if len(self.renewals) < 2 else "works"
            return await super().renew(claims, ttl)

    store, ttl = Recovering(), 2.0  # long enough for three attempts, also if the process stands still for a moment
    (await _runner(store, lease_ttl=ttl).execute(_sleeping(1.25 * ttl, []), run_id="r")).raise_for_status()
    assert len(store.renewals) >= 3
    assert "the renewal of leases failed" in caplog.text
    assert "the test's store is away" in caplog.text


@pytest.mark.parametrize("kind", ["commit", "announcement"])
async def test_renewals_do_not_wait_for_a_commit_or_an_announcement(kind: str) -> None:
    class Hanging(Store):
        """Commits that do not end for now."""

        def __init__(self) -> None:
            super().__init__()
            self.commit_begun, self.may_end = anyio.Event(), anyio.Event()

        async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
            self.commit_begun.set()
            await self.may_end.wait()
            return await super().commit(changes)

    store = Hanging()

    async def step(context: WorkflowContext, config: object) -> None:
        if kind == "announcement":  # which is the first commit then
            await store.may_end.wait()

    flow = Workflow("steps", [Step.lambda_("first", step), Step.lambda_("second", step)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_execute_many, _runner(store), flow)
        await store.commit_begun.wait()
        before = len(store.renewals)
        try:
            with anyio.fail_after(20):
                while len(store.renewals) < before + 4:  # noqa: ASYNC110 (the store notes them)
                    await anyio.sleep(0.01)
        finally:
            store.may_end.set()


async def test_due_announcements_are_committed_together() -> None:
    class Counting(Store):
        """Sets the event when there was one commit for each of the runs."""

        def __init__(self) -> None:
            super().__init__(commit_seconds=0.05)
            self.all_announced = anyio.Event()

        async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
            outcomes = await super().commit(changes)
            if len({run_id for group in self.groups for run_id in group}) == 100:
                self.all_announced.set()
            return outcomes

    store = Counting()

    async def step(context: WorkflowContext, config: object) -> None:
        await store.all_announced.wait()

    await _execute_many(WorkflowRunner(store=store), Workflow("waiting", [Step.lambda_("step", step)]))
    announced = [group for group in store.groups if len(group) > 1]
    assert sum(len(group) for group in store.groups) == 200  # one announcement and one end for each run
    assert len(announced) <= 10


@pytest.mark.allow_blocking
async def test_a_loop_that_stood_still_renews_before_it_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    async def block(context: WorkflowContext, config: object) -> None:
        threading.Event().wait(2 * TTL)
        await anyio.sleep(TTL)

    caplog.set_level(logging.WARNING)
    result = await _runner(Store()).execute(Workflow("blocking", [Step.lambda_("block", block)]), run_id="r")
    assert result.status == "completed"


async def test_a_run_with_an_ended_lease_of_its_own_clock_is_not_recorded() -> None:
    store = Store(renewal="fails")
    runner = _runner(store)
    with pytest.raises(LeaseLostError):
        await runner.execute(_sleeping(60, []), run_id="r")
    stored = await store.load("r")
    assert stored is not None
    assert (stored.status, stored.owner, stored.stop_reason) == ("pending", None, None)
    store.renewal = "works"
    assert (await runner.resume("r", workflow=_sleeping(0, []))).status == "completed"


async def test_a_run_that_begins_while_the_last_renewal_still_ends_is_renewed() -> None:
    class SlowToEnd(Store):
        """The first renewal cannot be interrupted, like one that has been sent to a database."""

        def __init__(self) -> None:
            super().__init__()
            self.began, self.may_end = anyio.Event(), anyio.Event()

        async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
            if not self.began.is_set():
                self.began.set()
                while not self.may_end.is_set():
                    with suppress(asyncio.CancelledError):
                        await self.may_end.wait()
            return await super().renew(claims, ttl)

    store = SlowToEnd()
    ended: list[object] = []
    goes_on = anyio.Event()

    async def wait(context: WorkflowContext, config: object) -> None:
        await goes_on.wait()

    async with _runner(store) as runner, anyio.create_task_group() as tasks:
        first = partial(runner.execute, Workflow("first", [Step.lambda_("wait", wait)]), run_id="first")
        tasks.start_soon(first)
        await store.began.wait()
        goes_on.set()
        await runner.result("first")
        while any(each.name == "spine_async loop watchdog" for each in threading.enumerate()):  # noqa: ASYNC110
            await anyio.sleep(0.01)  # until the watcher has seen that the first run ended
        try:
            await runner.execute(_sleeping(2 * TTL, ended), run_id="second")
        finally:
            store.may_end.set()
        assert ended == [None]
        assert store.renewals
