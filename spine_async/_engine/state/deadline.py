"""Deadlines of attempts.

Theory of operation: attempts rarely time out, and a timer and a cancel scope for each of them would take half as much
time as everything else in a step. So one timer, set to the earliest deadline, serves all attempts. One cancel scope
serves all consecutive attempts of a task, until one of them times out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Self

import anyio

from spine_async._engine.state.interrupts import PROCESS_EXIT
from spine_async._engine.state.task_scopes import restore_scopes, scopes_of
from spine_async._engine.tasks import EventLoop, Task, TimerHandle, is_cancelled_since, running_loop


@cache
def _scope_class() -> Any:
    """The class of `CancelScope()` objects, which anyio looks up anew for each scope."""
    base: Any = type(anyio.CancelScope())

    class AttemptScope(base):  # type: ignore[misc]  # known only where there is a loop
        """A cancel scope that sets no timer of its own, but reports its deadline.

        When its deadline has passed, `prolong` may give it a later one.
        `anyio.current_effective_deadline()` returns that deadline inside a handler.
        """

        __slots__ = ("deadline_mono", "prolong")

        @property
        def deadline(self) -> float:
            deadline: float = self.deadline_mono
            return deadline

    return AttemptScope


class Deadlines:
    """Cancels scopes whose deadline has passed."""

    def __init__(self) -> None:
        self._scopes: set[Any] = set()
        self._loop: EventLoop | None = None
        self._timer: TimerHandle | None = None
        self._next_mono = math.inf

    def new_scope(self) -> Any:
        """A scope without a deadline, to be entered in the running loop and passed to `remove` when it is left."""
        loop = running_loop()
        if loop is not self._loop:
            self._scopes.clear()
            self._loop, self._timer, self._next_mono = loop, None, math.inf
        scope = _scope_class()()
        scope.deadline_mono, scope.prolong = math.inf, None
        self._scopes.add(scope)
        return scope

    def remove(self, scope: Any) -> None:
        """Forget a scope that was left."""
        self._scopes.discard(scope)

    def set(self, scope: Any, seconds: float) -> float:
        """Cancel the scope after `seconds`, unless its deadline is changed; returns the deadline in loop time."""
        loop = self._loop
        assert loop is not None  # noqa: S101 (`new_scope` has set it)
        deadline: float = loop.time() + seconds
        scope.deadline_mono = deadline
        if deadline < self._next_mono:
            self._set_timer(loop, deadline)
        return deadline

    def _set_timer(self, loop: EventLoop, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_mono, self._timer = deadline, loop.call_at(deadline, self._cancel_expired, loop)

    def _cancel_expired(self, loop: EventLoop) -> None:
        self._next_mono, self._timer = math.inf, None
        now = loop.time()
        for scope in [scope for scope in self._scopes if scope.deadline_mono <= now]:
            if scope.prolong is not None:
                scope.deadline_mono = scope.prolong(now)
                if scope.deadline_mono > now:
                    continue
            self._scopes.discard(scope)
            scope.cancel()
        earliest = min((scope.deadline_mono for scope in self._scopes), default=math.inf)
        if earliest < math.inf:
            self._set_timer(loop, earliest)


class AttemptLimit:
    """The time limit of consecutive attempts in one task: a context manager around all of them.

    Args:
        deadlines: Cancels the attempts.
        task: The running task, which executes them.
        is_shared: Whether one scope serves consecutive attempts.

    The scope that the first attempt enters serves the later ones too, unless `is_shared` is False. Between two attempts
    it has no deadline. Only its own deadline ever cancels it. It must be the innermost scope of the task whenever an
    attempt begins or ends, so `leave_open_scopes` is called after user code.

    Attributes:
        task: The task.
        scopes: anyio's record of the task.
        innermost: The scope that is the innermost one of the task while no user code runs.
    """

    __slots__ = ("_cancellations", "_deadlines", "_is_shared", "_outer", "_scope", "innermost", "scopes", "task")

    def __init__(self, deadlines: Deadlines, task: Task[Any], *, is_shared: bool = True) -> None:
        self.task = task
        self._deadlines = deadlines
        self._is_shared = is_shared
        self._scope: Any = None
        self._cancellations = 0
        self.scopes = scopes_of(task)
        self.innermost = self._outer = self.scopes.cancel_scope

    def leave_open_scopes(self) -> bool:
        """Leave the scopes that user code has entered and not left; returns whether there were any.

        A scope outside of them that user code has left is entered again.
        """
        if self.scopes.cancel_scope is self.innermost:
            return False
        restore_scopes(self.scopes, self.innermost)
        return True

    def begin(self, seconds: float, prolong: Callable[[float], float] | None = None) -> float:
        """Begin an attempt that may take `seconds`; returns its deadline in loop time.

        Args:
            seconds: Time until the deadline.
            prolong: Is called with the loop time when the deadline has passed, and returns a later one or the same.
        """
        if self._scope is not None and self.task.cancelling() != self._cancellations:
            self._leave()  # a handler cancelled its own task; a scope entered earlier would treat that as its own
        if self._scope is None:
            self._cancellations = self.task.cancelling()
            self._scope = self._deadlines.new_scope()
            self._scope.__enter__()
            self.innermost = self.scopes.cancel_scope
        self._scope.prolong = prolong
        return self._deadlines.set(self._scope, seconds)

    def end(self, error: BaseException | None = None) -> bool:
        """End an attempt that raised `error`, or nothing; returns whether it ended after its deadline.

        An attempt whose deadline passed may raise anything while it is being cancelled. Another cancellation of the
        task takes precedence.
        """
        scope = self._scope
        scope.deadline_mono = math.inf
        if self._is_shared and not scope.cancel_called:
            return False
        has_expired = scope.cancel_called
        self._leave()
        return has_expired and not isinstance(error, PROCESS_EXIT) and not is_cancelled_since(self._cancellations)

    def _leave(self) -> None:
        scope, self._scope = self._scope, None
        if scope is not None:
            self.innermost = self._outer
            self._deadlines.remove(scope)
            scope.__exit__(None, None, None)  # given an exception group, it would raise another exception

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
