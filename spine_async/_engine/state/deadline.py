"""The moments by which attempts must have ended.

Theory of operation: one timer, set for the earliest moment, serves all attempts, since hardly any of them ever fires.
And one cancel scope serves the attempts of a task one after the other, until one of them is too slow. Setting a timer
and entering a scope for each would cost as much as half of all else that is done about a step which does nothing.
"""

from __future__ import annotations

import math
from asyncio import AbstractEventLoop, TimerHandle, get_running_loop
from functools import cache
from types import TracebackType
from typing import Any, Self

import anyio

from spine_async._engine.tasks import Task, current_task


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
        self._scopes: set[Any] = set()
        self._loop: AbstractEventLoop | None = None
        self._timer: TimerHandle | None = None
        self._due = math.inf

    def new_scope(self) -> Any:
        """A scope without a deadline yet, to be entered in the running loop and dropped afterwards."""
        loop = get_running_loop()
        if loop is not self._loop:
            self._scopes.clear()
            self._loop, self._timer, self._due = loop, None, math.inf
        scope = _scope_class()()
        scope.moment = math.inf
        self._scopes.add(scope)
        return scope

    def drop(self, scope: Any) -> None:
        """The scope has been left."""
        self._scopes.discard(scope)

    def set(self, scope: Any, seconds: float) -> float:
        """The scope is cancelled after so many seconds unless its moment is changed; that moment of the loop."""
        loop = get_running_loop()
        moment: float = loop.time() + seconds
        scope.moment = moment
        if moment < self._due:
            self._set_timer(loop, moment)
        return moment

    def _set_timer(self, loop: AbstractEventLoop, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = moment, loop.call_at(moment, self._look, loop)

    def _look(self, loop: AbstractEventLoop) -> None:
        self._due, self._timer = math.inf, None
        now = loop.time()
        for scope in [scope for scope in self._scopes if scope.moment <= now]:
            self._scopes.discard(scope)
            scope.cancel()
        due = min((scope.moment for scope in self._scopes), default=math.inf)
        if due < math.inf:
            self._set_timer(loop, due)


class Limit:
    """The time limit of attempts that follow each other in one task, as a context around them all.

    The scope that the first attempt enters stays for those after it, unless `lasts` says otherwise. Between two
    attempts it has no deadline, and nobody but its own deadline ever cancels it. Whenever an attempt begins or ends it
    must be the innermost one.
    """

    __slots__ = ("_cancellings", "_deadlines", "_lasts", "_scope", "_task")

    def __init__(self, deadlines: Deadlines, *, lasts: bool = True) -> None:
        self._deadlines = deadlines
        self._lasts = lasts
        self._scope: Any = None
        self._task: Task[Any] | None = None
        self._cancellings = 0

    def begin(self, seconds: float) -> float:
        """An attempt begins; the moment of the loop at which it is cancelled."""
        if self._task is not None and self._task.cancelling() != self._cancellings:
            self._leave(None)  # a handler cancelled its own task, which a scope takes for its business once entered
        if self._scope is None:
            self._task = current_task()
            self._cancellings = self._task.cancelling()
            self._scope = self._deadlines.new_scope()
            self._scope.__enter__()
        return self._deadlines.set(self._scope, seconds)

    def end(self, error: BaseException | None = None) -> bool:
        """An attempt has ended, with `error`; whether that is nothing but the cancellation by its deadline.

        Raises:
            RuntimeError: It has left a scope of its own open, such as that of an async generator not read to its end.
        """
        scope = self._scope
        scope.moment = math.inf
        # Leaving it is what finds scopes within it that are still open.
        may_stay = self._lasts and not scope.cancel_called and not getattr(scope, "_child_scopes", None)
        return False if may_stay else self._leave(error)

    def _leave(self, error: BaseException | None) -> bool:
        scope, self._scope, self._task = self._scope, None, None
        if scope is None:
            return False
        self._deadlines.drop(scope)
        return bool(scope.__exit__(type(error) if error is not None else None, error, None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)
