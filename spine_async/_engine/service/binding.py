"""Binds a runner to one process and one event loop while it is in use."""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

from anyio import to_thread

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.owner import new_owner
from spine_async._engine.tasks import EventLoop, run_shielded, running_loop
from spine_async.errors import SharingError

_PLACE = "place"


class _Place(NamedTuple):
    """Where a runner is in use."""

    pid: int
    loop: EventLoop
    thread: str


class Binding:
    """The process and the event loop in which a runner is in use, and its name as an owner of runs."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pid: int | None = None
        self._location: str | None = None
        self._in_use: dict[str, _Place] = {}

    @property
    def place(self) -> tuple[EventLoop, str] | None:
        """The event loop in which the runner is in use, and where its runs are stored; None if it is not in use.

        May be read in any thread.
        """
        place = self._in_use.get(_PLACE)
        if place is None or place.pid != os.getpid() or self._location is None:
            return None
        return place.loop, self._location

    @property
    def has_owner(self) -> bool:
        """Whether the runner has a name as an owner in this process."""
        return self._pid == os.getpid()

    def bind(self) -> bool:
        """Bind the runner to this process and event loop until `end`.

        Returns:
            Whether it was bound to an event loop that is closed, whose tasks have ended without releasing the runner.

        Raises:
            SharingError: The runner is in use in another event loop, or was when the process forked.
        """
        pid, loop = os.getpid(), running_loop()
        bound = self._in_use.get(_PLACE)
        if bound is not None and bound.loop is loop and bound.pid == pid:
            return False
        here = _Place(pid, loop, threading.current_thread().name)
        # Atomic: of two threads, the second one gets the place of the first.
        place = self._in_use.setdefault(_PLACE, here)
        if place.pid != here.pid:
            raise SharingError(
                "this runner was in use when its process forked, and its connections belong to the parent process",
                "leave the runner before the fork, or start the process with the method 'spawn'",
            )
        if place.loop is here.loop:
            return False
        if not place.loop.is_closed():
            raise SharingError(
                f"this runner is in use in another event loop, in the thread {place.thread!r}",
                "create a runner for each event loop, or call it in its own loop with asyncio.run_coroutine_threadsafe",
            )
        self._in_use[_PLACE] = here
        return True

    def end(self) -> None:
        """End the binding, so that the runner may be used elsewhere."""
        self._in_use.clear()

    async def name_owner(self) -> str | None:
        """Set the name of this runner as an owner; of several concurrent calls in one process the first one counts.

        Returns:
            Where its runs are stored; None if another call has set the name.
        """
        owner, location = await run_shielded(to_thread.run_sync(self._owner_and_location), "spine_async identify")
        if self.has_owner:
            return None
        self._pid, self._runtime.owner, self._location = os.getpid(), owner, location
        return location

    def _owner_and_location(self) -> tuple[str, str]:
        store = self._runtime.store
        return new_owner(), str(getattr(store, "location", type(store).__name__))
