"""The store of one life of a process, which is interrupted at one of its writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import anyio
from anyio.lowlevel import checkpoint

from spine_async._model.run_claim import Claim
from spine_async._model.run_row import NewRun
from spine_async.errors import StoreUnavailableError
from spine_async.ports import RunStore
from spine_async.testing.faults import FaultInjectingStore, Method

ResultT = TypeVar("ResultT")

How = Literal[
    "kill before", "kill after", "failed write", "lost answer", "stop", "compensating stop", "shutdown", "cancel"
]
ALL: tuple[How, ...] = get_args(How)

_WRITES = frozenset({"create", "commit", "transact", "release_run"})


@dataclass(frozen=True)
class Interrupt:
    """How a life is interrupted.

    Attributes:
        how: What happens.
        write: At which write of the life. The first write of all creates the run, and is never disturbed.
        death: After how many more writes the process is killed; None: it is not.
    """

    how: How
    write: int
    death: int | None = None


class FragileStore(FaultInjectingStore):
    """The store of one life: at one of its writes it dies, fails once, or calls for the interrupt.

    Attributes:
        writes: Number of writes that have begun.
        is_dead: Whether nothing reaches the store any more.
        reached: Set when the store has died, or the runner is to be asked for something.
        died: Set when it has died.
        has_struck: Whether the interrupt has happened.
    """

    def __init__(self, store: RunStore, interrupt: Interrupt | None, on_created: Callable[[str], None]) -> None:
        super().__init__(store)
        self.interrupt = interrupt
        self._on_created = on_created
        self.writes = 0
        self.is_dead = False
        self.has_struck = False
        self.reached = anyio.Event()
        self.died = anyio.Event()

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        claims = await super().create(runs)
        for run in runs:
            self._on_created(run.run_id)
        return claims

    async def _call(self, method: Method, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        how = self._count(method)
        if how == "kill before":
            self._die()
        self._require_life()
        if how == "failed write":
            raise StoreUnavailableError("this write failed")
        result = await work()
        if how == "kill after":
            self._die()
        self._require_life()
        if how is not None:
            await self._interrupted(how)
        return result

    async def _interrupted(self, how: How) -> None:
        if how == "lost answer":
            raise StoreUnavailableError("the answer to this write was lost")
        self.reached.set()
        await checkpoint()

    def _count(self, method: Method) -> How | None:
        """Count a write; how the life is interrupted at this one, or None."""
        interrupt = self.interrupt
        if method not in _WRITES or self.is_dead:
            return None
        self.writes += 1
        if interrupt is None:
            return None
        if interrupt.death is not None and self.writes == interrupt.write + interrupt.death:
            return "kill before"
        if self.writes != interrupt.write:
            return None
        self.has_struck = True
        return interrupt.how

    def _die(self) -> None:
        self.is_dead = True
        self.reached.set()
        self.died.set()

    def _require_life(self) -> None:
        if self.is_dead:
            raise StoreUnavailableError("the process that used this store was killed")
