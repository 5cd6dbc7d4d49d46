"""Random workflows of all kinds of steps, interrupted at random writes: the end is that of the undisturbed run.

The interrupts are kills, writes that fail or whose answers are lost, stops, cancelled callers, and shutdowns, alone and
one after the other. A run that was stopped, or whose caller was cancelled, is resumed.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from spine_async import RunStatus, Workflow, WorkflowResult
from spine_async.ports import RunStore
from spine_async.storage import MemoryRunStore, SqlRunStore
from spine_async.testing.resumption import _end_of
from tests.chaos.fragile_store import ALL, How, Interrupt
from tests.chaos.grown import diary, workflows
from tests.chaos.interrupts import UNDO, World
from tests.chaos.size import SEED, report, size
from tests.service.ledger import create_ledger
from tests.service.places import Place

ON_DISK = [False] * 9 + [True]
"""Whether a world is in SQLite, where it may have transactional steps."""


@dataclass
class Plan:
    """Where a life is interrupted: at this share of the writes of the undisturbed run."""

    how: How
    place: float
    death: int | None

    def interrupt(self, writes: int) -> Interrupt:
        return Interrupt(self.how, 2 + int(self.place * (writes - 1)), self.death)


plans = st.builds(Plan, st.sampled_from(ALL), st.floats(0, 1, exclude_max=True), st.none() | st.integers(0, 4))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[bool, Workflow]:
    is_on_disk = draw(st.sampled_from(ON_DISK))
    return is_on_disk, draw(workflows(transactions=is_on_disk))


@dataclass
class Figures:
    worlds: int = 0
    on_disk: int = 0
    strikes: Counter[str] = field(default_factory=Counter)


class Stores:
    """Makes empty stores: in memory, or as copies of an SQLite file with the schema and the ledger."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        anyio.run(self._make_template)

    async def _make_template(self) -> None:
        place = Place(f"sqlite+aiosqlite:///{self._folder / 'template'}")
        async with place.runner(work=False):
            pass
        await create_ledger(place)

    @asynccontextmanager
    async def empty(self, *, is_on_disk: bool) -> AsyncIterator[tuple[RunStore, Callable[[], Any]]]:
        """A store, and a function that reads the ledger beside it."""
        if not is_on_disk:
            yield MemoryRunStore(), _no_ledger
            return
        file = self._folder / f"world{next(self._numbers)}"
        shutil.copyfile(self._folder / "template", file)
        url = f"sqlite+aiosqlite:///{file}"
        store = SqlRunStore.from_url(url, durability="process")
        try:
            yield store, partial(_ledger, url)
        finally:
            await store.close()
            for each in self._folder.glob(f"{file.name}*"):
                each.unlink()


async def _no_ledger() -> list[str]:
    return []


async def _ledger(url: str) -> list[str]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        entries = sorted((await connection.execute(text("SELECT what FROM ledger"))).scalars())
    await engine.dispose()
    return entries


def end_of(result: WorkflowResult) -> dict[str, Any]:
    # Items of a map and branches end in any order, so their compensations do too.
    return {
        **_end_of(result),
        "compensated": sorted(result.compensated_steps),
        "params": result.to_dict()["context"]["params"],
    }


async def compare(stores: Stores, figures: Figures, world: tuple[bool, Workflow], lives: Sequence[Plan]) -> None:
    is_on_disk, workflow = world
    diary.calls.clear()
    async with stores.empty(is_on_disk=is_on_disk) as (store, entries):
        quiet = World(workflow, store)
        undisturbed, writes = await quiet.live_through([])
        await quiet.check_compensations(exactly=True)
        wanted = await entries()
    diary.calls.clear()
    async with stores.empty(is_on_disk=is_on_disk) as (store, entries):
        wild = World(workflow, store)
        result, _ = await wild.live_through([each.interrupt(writes) for each in lives])
        figures.worlds, figures.on_disk = figures.worlds + 1, figures.on_disk + is_on_disk
        figures.strikes.update(wild.strikes)
        await wild.check_compensations(exactly=len(lives) == 1)
        if result.status is RunStatus.STOPPED:
            assert (result.stop_reason, "compensating stop" in wild.strikes) == (UNDO, True)
            return
        assert end_of(result) == end_of(undisturbed)
        assert await entries() == wanted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("short", [50, pytest.param(200, marks=pytest.mark.long)])
def test_random_workflows_end_alike_however_they_are_interrupted(short: int, tmp_path: Path) -> None:
    figures, stores = Figures(), Stores(tmp_path)

    @seed(SEED)
    @settings(
        max_examples=size(short, 5000),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(worlds(), st.lists(plans, min_size=1, max_size=2))
    def grow(world: tuple[bool, Workflow], lives: list[Plan]) -> None:
        anyio.run(compare, stores, figures, world, lives)

    grow()
    strikes = {how.replace(" ", "_"): number for how, number in sorted(figures.strikes.items())}
    report("grown workflows", worlds=figures.worlds, on_disk=figures.on_disk, **strikes)
    assert set(figures.strikes) == set(ALL) or figures.worlds < 200
