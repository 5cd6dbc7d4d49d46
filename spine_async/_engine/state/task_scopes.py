"""The cancel scopes that a task has entered and not left.

User code may enter a scope, or a task group, and never leave it. anyio notices that only when a scope outside of it is
left, and raises an error there, in the middle of the engine. So the scopes are compared after user code has run, and
those that it left open are left for it. anyio has no public function that returns the scopes of a task. If its record
of a task has another form one day, open scopes are no longer found, and everything else works.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio

from spine_async._engine.tasks import Task

try:
    from anyio._backends._asyncio import _task_states
except ImportError:  # pragma: no cover
    _task_states = None  # type: ignore[assignment]


class _Unknown:
    """Stands for the record of a task of which nothing is known."""

    cancel_scope = None


def scopes_of(task: Task[Any]) -> Any:
    """Anyio's record of the running task: its attribute `cancel_scope` is the innermost scope, or None."""
    if _task_states is None:  # pragma: no cover
        return _Unknown()
    record = _task_states.get(task)
    if record is None:
        scope = anyio.CancelScope()
        scope.__enter__()  # creates the record
        record = _task_states.get(task)
        scope.__exit__(None, None, None)
    return record if hasattr(record, "cancel_scope") else _Unknown()


def restore_scopes(record: Any, innermost: Any) -> None:
    """Make `innermost` the innermost scope of the running task again.

    Scopes inside of it are cancelled, for the tasks of a task group, and left. If it or a scope around it was left, it
    is entered again.
    """
    kept = list(_outwards(innermost))
    while (scope := record.cancel_scope) is not None and scope not in kept:
        scope.cancel()
        scope.__exit__(None, None, None)
    while kept and kept[-1] is not record.cancel_scope and record.cancel_scope is not None:
        kept.pop()  # these enclose the scope that is the innermost one now
    closed = kept[:-1] if record.cancel_scope is not None else kept
    for scope in reversed(closed):
        scope.__enter__()


def _outwards(scope: Any) -> Iterator[Any]:
    """The scope and those around it."""
    while scope is not None:
        yield scope
        scope = scope._parent_scope  # noqa: SLF001 - there is no public name
