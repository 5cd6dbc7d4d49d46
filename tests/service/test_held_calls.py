"""Each call of the store is held while each method of the runner is called for the same run.

Whatever the store is doing, the method ends with an answer that its contract allows, the run ends, no finished step is
repeated, and nobody keeps the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from spine_async import (
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
    RunStatus,
    Step,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from spine_async.errors import DefinitionError, RunEndedError, RunNotResumableError
from spine_async.storage import MemoryRunStore, SqlRunStore
from spine_async.testing import FaultInjectingStore
from spine_async.testing.faults import Method, Moment
from tests.service.flows import Config
from tests.service.late import LEASE, answer, is_cancelled, late_runner, spawn
from tests.service.services import until


@dataclass(frozen=True)
class Held:
    """A call of the store that is held.

    Attributes:
        number: Which one of these calls; 0 means the next one once the second step has begun.
        works: Whether the runner works.
        by: The method of the runner that makes it; None for its background tasks.
    """

    method: Method
    moment: Moment = "before"
    number: int = 1
    works: bool = True
    by: str | None = None

    def __str__(self) -> str:
        return f"{self.method}{self.number or ''}-{self.moment}"


MOMENTS: tuple[Moment, Moment] = ("before", "after")
HELD = [
    each
    for moment in MOMENTS
    for each in (
        Held("create", moment, works=False, by="start"),
        Held("claim", moment, works=False, by="execute"),
        Held("load", moment, works=False, by="execute"),
        Held("claim_due", moment),
        Held("sweep", moment),
        Held("commit", moment),
        Held("commit", moment, 2),
        Held("notices", moment, 0),
        Held("renew", moment, 0),
        Held("request_stop", moment, 0, by="stop"),
        Held("send", moment, 0, by="signal"),
    )
]


class Scene:
    """A runner and a run of two steps, the second of which waits for `gate`."""

    def __init__(self, store: FaultInjectingStore, held: Held) -> None:
        self.store, self.held = store, held
        self.begun: list[str] = []
        self.gate = anyio.Event()
        if held.number > 1:
            self.gate.set()
        self.flow = Workflow("held", [Step.lambda_("first", self._step), Step.lambda_("last", self._last)])
        self.exit = anyio.Event()
        self.runner = self.new_runner(work=held.works)
        self.is_stopped = held.by == "stop"

    def new_runner(self, *, work: bool) -> WorkflowRunner:
        return late_runner(self.store, self.flow, work=work, drain_timeout=10.0)

    async def _step(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.begun.append(f"{context.run_id} {context.step_name}")
        return {}

    async def _last(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        await self._step(context, config)
        await self.gate.wait()
        return {}

    async def use(self) -> None:
        """Enter the runner until `exit` is set."""
        async with self.runner:
            await self.exit.wait()

    async def hold(self) -> tuple[asyncio.Task[None], Callable[[], None]]:
        """Let the call hang; returns the user of the runner, and a function that ends the hanging."""
        held, store, runner = self.held, self.store, self.runner
        if held.number == 0:
            user = spawn(self.use())
            await until(lambda: runner._entries)
            await runner.start(self.flow, run_id="r")
            await until(lambda: "r last" in self.begun)
            hang = store.hang(held.method, call=store.calls[held.method] + 1, moment=held.moment)
        else:
            if held.by != "start":
                await self.new_runner(work=False).enqueue(self.flow, run_id="r")
            hang = store.hang(held.method, call=store.calls[held.method] + held.number, moment=held.moment)
            user = spawn(self.use())
            await until(lambda: runner._entries)
        if held.method == "renew":
            runner._active_runs._runs["r"].pending.claim.lease_until_mono -= LEASE * 0.9
        self.others = [spawn(METHODS[held.by](self))] if held.by is not None else []
        await hang.reached.wait()
        return user, hang.release.set

    async def status(self) -> RunStatus | None:
        found = await self.store.load("r")
        return RunStatus(found.status) if found is not None else None


async def follow(scene: Scene) -> list[int]:
    async with aclosing(scene.runner.events("r", follow=True)) as events:
        return [event.seq async for event in events]


async def leave(scene: Scene) -> None:
    scene.exit.set()


METHODS: dict[str, Callable[[Scene], Any]] = {
    "execute": lambda scene: scene.runner.execute(scene.flow, run_id="r"),
    "start": lambda scene: scene.runner.start(scene.flow, run_id="r"),
    "enqueue": lambda scene: scene.runner.enqueue(scene.flow, run_id="r"),
    "resume": lambda scene: scene.runner.resume("r"),
    "resume_in_background": lambda scene: scene.runner.resume_in_background("r"),
    "stop": lambda scene: scene.runner.stop("r"),
    "signal": lambda scene: scene.runner.signal("r", "name"),
    "result": lambda scene: scene.runner.result("r"),
    "follow": follow,
    "fork": lambda scene: scene.runner.fork("r", "last", new_run_id="f"),
    "delete_run": lambda scene: scene.runner.delete_run("r"),
    "leave": leave,
}
REFUSALS: dict[str, tuple[type[Exception], ...]] = {
    "resume": (RunBusyError, RunNotResumableError, RunNotFoundError),
    "resume_in_background": (RunBusyError, RunNotResumableError, RunNotFoundError),
    "stop": (RunNotFoundError,),
    "signal": (RunNotFoundError, RunEndedError),
    "result": (RunNotFoundError,),
    "follow": (RunNotFoundError,),
    "fork": (RunNotFoundError, DefinitionError),
    "delete_run": (RunNotFoundError, RunConflictError),
}


def check_answer(scene: Scene, name: str, given: Any) -> None:
    if isinstance(given, BaseException):
        assert isinstance(given, REFUSALS.get(name, ())), repr(given)
        if isinstance(given, RunNotFoundError):
            assert scene.held.method == "create"
        return
    if name == "resume":  # of a run that is being stopped: it may continue it afterwards
        assert given.status in ({"stopped", "completed"} if scene.is_stopped else {"completed"})
    if name in {"execute", "result"}:
        assert given.status == ("stopped" if scene.is_stopped else "completed")
    if name == "follow":
        assert given == list(range(1, len(given) + 1))
    if name == "stop" and given is False:  # it has ended before
        scene.is_stopped = scene.held.by == "stop"


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.sample(every=5)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("held", HELD, ids=str)
async def test_every_method_keeps_its_contract(held: Held, name: str) -> None:
    await check_method(FaultInjectingStore(MemoryRunStore()), held, name)


@pytest.mark.sample(every=5)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("held", [each for each in HELD if each.method in {"claim_due", "commit"}], ids=str)
async def test_every_method_keeps_its_contract_on_sqlite(sqlite_url: str, held: Held, name: str) -> None:
    await check_method(FaultInjectingStore(SqlRunStore.from_url(sqlite_url)), held, name)


@pytest.mark.sample(every=5)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("held", HELD, ids=str)
async def test_every_method_can_be_cancelled(held: Held, name: str) -> None:
    """Also the one that makes the call which is held. No cancellation is lost, and none stops the run."""
    scene = Scene(FaultInjectingStore(MemoryRunStore()), held)
    user, release = await scene.hold()
    call = spawn(METHODS[name](scene))
    scene.is_stopped = scene.is_stopped or name == "stop"
    await turns()
    cancelled = [each for each in (call, user if name == "leave" else None, *scene.others) if each and each.cancel()]
    await turns()
    release()
    scene.gate.set()
    assert [await is_cancelled(each) for each in cancelled] == [True] * len(cancelled)
    scene.exit.set()
    if user not in cancelled:
        assert await answer(user) is None
    await check_run(scene, may_repeat=True, is_deleted=name == "delete_run")


async def check_method(store: FaultInjectingStore, held: Held, name: str) -> None:
    scene = Scene(store, held)
    user, release = await scene.hold()
    call = spawn(METHODS[name](scene))
    scene.is_stopped = scene.is_stopped or name == "stop"
    await turns()
    release()
    scene.gate.set()
    check_answer(scene, name, await answer(call))
    for other in scene.others:
        await answer(other)
    if name != "leave" and held.works:
        await until(lambda: has_ended(scene))
    scene.exit.set()
    assert await answer(user) is None
    may_repeat = name == "leave" or (scene.is_stopped and "resume" in name)
    await check_run(scene, may_repeat=may_repeat, is_deleted=name == "delete_run")


async def check_run(scene: Scene, *, may_repeat: bool, is_deleted: bool = False) -> None:
    """Check that the run ends, now at the latest, and what was executed.

    Args:
        scene: The scene.
        may_repeat: Whether the step may have been executed again that was under way.
        is_deleted: Whether the run may have been deleted.
    """
    async with scene.new_runner(work=True) as runner:
        if await scene.status() is None:
            assert scene.held.method == "create" or is_deleted
            return
        result = await runner.result("r", timeout=15)
        assert result.status in ({"stopped", "completed"} if scene.is_stopped else {"completed"})
        assert scene.begun.count("r first") <= 1 + (may_repeat and "r last" not in scene.begun[:2])
        assert scene.begun.count("r last") <= 1 + may_repeat
        assert result.status == "stopped" or "r last" in scene.begun
        found = await scene.store.load("r")
        assert found is not None
        assert found.owner is None


async def has_ended(scene: Scene) -> bool:
    status = await scene.status()
    return status is None or status.is_final
