"""Sweeps as functions of an asyncpg connection.

A sweep first looks, in one query. Only if there is something to do, it makes runs ready. Rows that others have locked
are passed over, and the next sweep looks at them again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from spine_async._model.due import Sweep
from spine_async.storage.boot_clock import BootTime
from spine_async.storage.sql.postgres import due_statements
from spine_async.storage.sql.postgres.clock import boot_now

if TYPE_CHECKING:
    import asyncpg

    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]


@dataclass(frozen=True, slots=True)
class _Look:
    """The result of reading the indexes.

    Attributes:
        is_due: Whether the time of a run has come.
        has_news: Whether there is a message, for a run without an owner, that no sweep has seen.
        sweep: The result of a sweep that changes nothing.
    """

    is_due: bool
    has_news: bool
    sweep: Sweep

    def has_lost(self, gone: Collection[str], lapsed: Collection[str]) -> bool:
        """Whether one of these owners holds a run that is to be made ready."""
        owners = self.sweep.owners
        return any(each in owners for each in gone) or any(owners.get(each, False) for each in lapsed)


async def sweep(driver: Driver, gone: Collection[str], lapsed: Collection[str], spared: Collection[str]) -> Sweep:
    """Make runs ready that are due."""
    now = await boot_now()
    found = await _look(driver, now)
    has_lost = found.has_lost(gone, lapsed)
    if found.is_due:
        await driver.execute(due_statements.READY_BY_WALL, now.boot)
        await driver.execute(due_statements.READY_IN_BOOT, now.boot, now.seconds)
    if found.has_news:
        await driver.fetch(due_statements.READY_BY_NEWS)  # prepared, unlike `execute` without arguments
    if has_lost:
        await driver.execute(due_statements.READY_OF_OWNERS, list(gone), list(lapsed), list(spared))
    if found.is_due or has_lost:  # other runs are due next, and other owners hold runs
        return (await _look(driver, now)).sweep
    return replace(found.sweep, made_ready=found.has_news)


async def _look(driver: Driver, now: BootTime) -> _Look:
    record = await driver.fetchrow(due_statements.LOOK, now.boot, now.seconds)
    assert record is not None  # noqa: S101 (narrows the type: the query always returns one row)
    owners = dict(zip(record["owners"] or (), record["have_ended"] or (), strict=True))
    times = [max(0.0, each) for each in (record["next_by_wall"], record["next_in_boot"]) if each is not None]
    # A lease that has ended is no reason to look again at once: its owner is alive, or has time to renew it.
    ends = [each for each in (record["next_end"],) if each is not None and each > 0]
    next_due = min((*times, *ends), default=None)
    is_due = record["is_due"] or (record["next_in_boot"] is not None and record["next_in_boot"] <= 0)
    if is_due:  # more than one sweep makes ready, or a row is locked
        next_due = 0.0
    return _Look(is_due, record["has_news"], Sweep(owners, next_due))
