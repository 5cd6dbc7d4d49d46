"""The watchdog reports what blocks the event loop, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async._engine.service.loop_watchdog import BLOCKED_AFTER, _Moment, _Streak
from spine_async._engine.tasks import Task
from spine_async.storage.memory import MemoryRunStore

Config = Mapping[str, Any]

pytestmark = pytest.mark.allow_blocking  # which is the subject


class Warnings(logging.Handler):
    """The warnings of the library that speak of a blocked loop."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.arrived = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "blocked" in record.getMessage():
            self.messages.append(record.getMessage())
            self.arrived.set()


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    logger, handler = logging.getLogger("spine_async"), Warnings()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


async def _execute(handler: Callable[..., object], store: Any = None) -> None:
    result = await WorkflowRunner(store=store or MemoryRunStore()).execute(
        Workflow("w", [Step.lambda_("guilty", handler)]), run_id="r"
    )
    result.raise_for_status()


@pytest.mark.slow
class TestReported:
    async def test_a_step_that_blocks_the_loop_from_its_first_moment(self, warnings: Warnings) -> None:
        async def block(context: WorkflowContext, config: Config) -> dict[str, bool]:
            return {"was_noticed": warnings.arrived.wait(10)}

        await _execute(block)
        (message,) = warnings.messages
        assert "by step 'guilty' of run 'r'" in message

    async def test_a_generator_of_items_belongs_to_its_map(self, warnings: Warnings) -> None:
        def items(context: WorkflowContext) -> Iterator[int]:
            warnings.arrived.wait(10)
            yield 1

        async def nothing(context: WorkflowContext, config: Config) -> None:
            return None

        step = Step.map("guilty", items=items, iterator=nothing)
        await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [step]), run_id="r")
        assert "by step 'guilty' of run 'r'" in warnings.messages[0]

    async def test_a_step_that_computes_in_python(self, warnings: Warnings) -> None:
        async def compute(context: WorkflowContext, config: Config) -> None:
            give_up_at = time.monotonic() + 10
            while not warnings.arrived.is_set() and time.monotonic() < give_up_at:
                pass

        await _execute(compute)
        assert "by step 'guilty' of run 'r'" in warnings.messages[0]

    async def test_a_step_that_keeps_the_gil(self, warnings: Warnings) -> None:
        async def compute(context: WorkflowContext, config: Config) -> None:
            began = time.thread_time()
            sum(range(30_000_000))
            per_item = (time.thread_time() - began) / 30_000_000
            await anyio.sleep(0.01)
            sum(range(int(2.5 * BLOCKED_AFTER / per_item)))  # one call of a function written in C

        await _execute(compute)
        assert "by step 'guilty' of run 'r'" in warnings.messages[0]

    async def test_other_code_of_the_program_is_not_called_a_step(self, warnings: Warnings) -> None:
        async def wait(context: WorkflowContext, config: Config) -> None:
            begun.set()
            await noticed.wait()

        begun, noticed = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_execute, wait)
            await begun.wait()
            await anyio.sleep(0.05)
            warnings.arrived.wait(10)
            noticed.set()
        assert "by code that is not a step of this runner" in warnings.messages[0]
        assert "guilty" not in warnings.messages[0]


@pytest.mark.slow
class TestNotReported:
    async def test_encoding_a_large_result(self, warnings: Warnings) -> None:
        def large(context: WorkflowContext, config: Config) -> dict[str, object]:
            return {"rows": [{"number": number, "text": str(number)} for number in range(800_000)]}

        await _execute(large)
        assert warnings.messages == []

    async def test_many_sleeping_runs(self, warnings: Warnings) -> None:
        async def sleep(context: WorkflowContext, config: Config) -> None:
            await anyio.sleep(1.5)

        runner = WorkflowRunner(store=MemoryRunStore())
        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(runner.execute, Workflow("w", [Step.lambda_("guilty", sleep)]))
        assert warnings.messages == []

    async def test_a_store_that_does_not_answer(self, warnings: Warnings) -> None:
        class Silent(MemoryRunStore):
            async def commit(self, changes: Any) -> Any:
                await anyio.sleep(1.5)
                return await super().commit(changes)

        async def sleep(context: WorkflowContext, config: Config) -> None:
            await anyio.sleep(0.7)  # its start is announced

        await _execute(sleep, Silent())
        assert warnings.messages == []

    async def test_a_step_that_yields_between_short_blocks(self, warnings: Warnings) -> None:
        async def work(context: WorkflowContext, config: Config) -> None:
            for _ in range(10):
                threading.Event().wait(0.15)
                await anyio.lowlevel.checkpoint()

        await _execute(work)
        assert warnings.messages == []


class TestSamples:
    """`_Streak`: the task is `one` or `two`; a sample is taken every 0.1 s."""

    one: Any = object()
    two: Any = object()

    def streak(self, *samples: tuple[float, float, Task[Any]]) -> float:
        streak, seconds = _Streak(_Moment(0.0, 0.0)), 0.0
        for mono, cpu, task in samples:
            seconds = streak.add(task, _Moment(mono, cpu))
        return seconds

    def test_equal_samples_add_up(self) -> None:
        assert self.streak((0.1, 0, self.one), (0.2, 0, self.one), (0.3, 0, self.one)) == pytest.approx(0.3)

    def test_another_task_begins_anew(self) -> None:
        assert self.streak((0.1, 0, self.one), (0.2, 0, self.two), (0.3, 0, self.two)) == pytest.approx(0.1)

    def test_a_gap_counts_as_far_as_the_loop_computed(self) -> None:
        assert self.streak((5.0, 4.5, self.one)) == pytest.approx(4.5)

    def test_a_gap_of_a_suspended_process_counts_as_one_sample(self) -> None:
        assert self.streak((0.1, 0, self.one), (60.0, 0, self.one)) == pytest.approx(0.2)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_whose_thread_has_ended_is_no_longer_watched() -> None:
    """Its owner closed it without leaving the runner."""
    runner, watchers = WorkflowRunner(store=MemoryRunStore()), list[threading.Thread]()

    def enter() -> None:
        before = set(threading.enumerate())
        loop = asyncio.new_event_loop()
        loop.run_until_complete(runner.__aenter__())
        loop.run_until_complete(runner.execute(Workflow("w", [Step.wait("pause", 0.001)])))
        new = set(threading.enumerate()) - before
        watchers.extend(each for each in new if each.name == "spine_async loop watchdog")
        loop.close()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert len(watchers) == 1
    watchers[0].join(20)  # an exception in it would fail the test
    assert not watchers[0].is_alive()
