"""Refuses an engine that is shared between event loops, or with a fork of the process."""

from __future__ import annotations

import asyncio
import os

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from spine_async.errors import SharingError

_PLACE = "_spine_async_place"


def foreign_loop() -> SharingError:
    """The error for an engine whose connections belong to another event loop."""
    return SharingError(
        "db_engine holds connections of another event loop, which cannot be used in this one",
        "end each asyncio.run with `await engine.dispose()`, create an engine for each event loop, use "
        "poolclass=NullPool, or pass the runner a database URL instead of an engine",
    )


def forked(what: str, way_out: str) -> SharingError:
    """The error for an object that was open when the process forked, and that the child process uses."""
    return SharingError(f"{what} was opened by another process, of which this one is a fork", way_out)


def forked_engine() -> SharingError:
    """The error for a given engine that was in use when the process forked."""
    return forked("db_engine", "dispose of it before the fork, or start the process with the method 'spawn'")


def bind_pool(engine: AsyncEngine) -> None:
    """Bind the pool of a given engine to the running event loop, for as long as that loop runs.

    Raises:
        SharingError: Another running event loop uses the pool, whose locks work within one loop only; or the process
            from which this one was forked has used it.
    """
    if isinstance(engine.pool, NullPool):
        return
    here = (os.getpid(), asyncio.get_running_loop())
    places: dict[str, tuple[int, asyncio.AbstractEventLoop]] = vars(engine.pool)
    pid, loop = places.setdefault(_PLACE, here)  # atomic: of two threads, the second one gets the entry of the first
    if pid != here[0]:  # it may hold connections of that process, also those that are in use there
        raise forked_engine()
    if loop is not here[1] and loop.is_running():
        raise foreign_loop()
    places[_PLACE] = here
