"""The limits of queues as functions of an asyncpg connection.

A run that is held uses a slot of its queue: there is no other record of it. Before a claim counts the slots, it locks
the queue in a statement of its own. Without that, the count would use a snapshot that is older than the lock, and
several claimers would exceed the limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

from spine_async._model.queue import LISTED_FOR, Queue
from spine_async._model.queue_room import QueueUse, Room
from spine_async.storage.sql.postgres import queue_statements

if TYPE_CHECKING:
    import asyncpg

    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

_LOCK_MS = "500"
"""Limit of the wait for another claim of the same queue, which takes a few milliseconds."""

_IDLE_MS = "5000"
"""A process that is suspended for so long in the middle of a claim loses its connection."""

_NO_RUN = ""  # no run has this id


@asynccontextmanager
async def locked(driver: Driver, queues: Iterable[Queue]) -> AsyncIterator[None]:
    """A transaction in which nobody else claims runs of these queues.

    Raises:
        asyncpg.LockNotAvailableError: Another claim has locked one of them for long.
    """
    keys = sorted({_lock_of(each.name) for each in queues})
    async with driver.transaction(isolation="read_committed"):
        await driver.execute(queue_statements.LOCK, keys, _LOCK_MS, _IDLE_MS)
        yield


async def rooms_of(driver: Driver, queues: Sequence[Queue], owner: str, *, besides: str = _NO_RUN) -> dict[str, Room]:
    """The room that is left in each queue, by name.

    Args:
        driver: The connection; the queues must be locked if the answer is to be exact.
        queues: The queues with their limits.
        owner: The owner that claims.
        besides: Id of a run that is not counted, because it is about to change its owner.
    """
    held = [each.name for each in queues if each.limits_held]
    rates = [(each.name, each.rate.seconds) for each in queues if each.rate is not None]
    slots = await driver.fetch(queue_statements.HELD, held, owner, besides) if held else []
    begun = await driver.fetch(queue_statements.BEGUN, *map(list, zip(*rates, strict=True))) if rates else []
    by_queue = {each["queue"]: (each["runs"], each["leaves_in"]) for each in begun}
    return {each.name: Room(each, _use(each.name, slots, *by_queue.get(each.name, (0, None)))) for each in queues}


async def record_first_claims(driver: Driver, queues: Sequence[Queue], begun: Mapping[str, int]) -> None:
    """Record that runs have begun in queues with a rate, and forget those that have left their windows."""
    rows = [
        (each.name, begun[each.name], each.rate.seconds) for each in queues if each.rate and begun.get(each.name, 0)
    ]
    if rows:
        await driver.execute(queue_statements.RECORD, *map(list, zip(*rows, strict=True)))


async def unlisted_queues(driver: Driver, listed: Collection[str]) -> list[str]:
    """Record the listed queues; those with waiting runs that nobody has listed for `LISTED_FOR`."""
    queues = sorted(listed)
    await driver.execute(queue_statements.LIST, queues)
    return [each["queue"] for each in await driver.fetch(queue_statements.UNLISTED, queues, LISTED_FOR)]


def _use(queue: str, slots: Sequence[asyncpg.Record], begun: int, leaves_in: float | None) -> QueueUse:
    own = [each for each in slots if each["queue"] == queue]
    by_key: dict[str, int] = {}
    for each in own:
        if each["queue_key"] is not None:
            by_key[each["queue_key"]] = by_key.get(each["queue_key"], 0) + each["runs"]
    here = sum(each["runs"] for each in own if each["is_here"])
    return QueueUse(sum(each["runs"] for each in own), here, by_key, begun, leaves_in)


def _lock_of(queue: str) -> int:
    """The advisory lock of a queue. Two queues with the same lock would only wait for each other."""
    digest = hashlib.sha256(f"spine_async queue {queue}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
