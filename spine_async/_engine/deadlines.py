"""The moments by which attempts must have ended.

Theory of operation: each attempt has a cancel scope of its own, but one timer, set for the earliest moment, serves them
all. Setting and taking away a timer for each would cost as much as all else that is done about a step which does
nothing, and hardly any of them ever fires. What has ended before its time is simply not there when the timer fires.
"""

from __future__ import annotations

import math
from asyncio import AbstractEventLoop, TimerHandle, get_running_loop
from functools import cache
from typing import Any

import anyio


@cache
def _scope_class() -> Any:
    """The class behind `CancelScope()`, which finds out anew each time what kind of event loop is running."""
    base: Any = type(anyio.CancelScope())

    class AttemptScope(base):  # type: ignore[misc]  # known only where there is a loop
        """A scope that sets no timer of its own, and says all the same until when it lasts.

        That is what `anyio.current_effective_deadline()` tells a handler.
        """

        __slots__ = ("moment",)

        @property
        def deadline(self) -> float:
            moment: float = self.moment
            return moment

    return AttemptScope


class Deadlines:
    """Cancels scopes when their time is over."""

    def __init__(self) -> None:
        self._moments: dict[anyio.CancelScope, float] = {}
        self._loop: AbstractEventLoop | None = None
        self._new_scope: Any = None
        self._timer: TimerHandle | None = None
        self._due = math.inf

    def open(self, seconds: float) -> tuple[anyio.CancelScope, float]:
        """A scope that is cancelled after so many seconds unless it is closed before, and that moment of the loop."""
        loop = get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        moment = loop.time() + seconds
        scope = self._new_scope()
        scope.moment = moment
        self._moments[scope] = moment
        if moment < self._due:
            self._set_timer(loop, moment)
        return scope, moment

    def close(self, scope: anyio.CancelScope) -> None:
        """The scope has been left."""
        self._moments.pop(scope, None)

    def _move_to(self, loop: AbstractEventLoop) -> None:
        self._moments.clear()
        self._loop, self._timer, self._due = loop, None, math.inf
        self._new_scope = _scope_class()

    def _set_timer(self, loop: AbstractEventLoop, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = moment, loop.call_at(moment, self._look, loop)

    def _look(self, loop: AbstractEventLoop) -> None:
        self._due, self._timer = math.inf, None
        now = loop.time()
        for scope in [scope for scope, moment in self._moments.items() if moment <= now]:
            del self._moments[scope]
            scope.cancel()
        if self._moments:
            self._set_timer(loop, min(self._moments.values()))
