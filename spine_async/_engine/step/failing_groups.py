"""Counts the cancellations that failing instances of `asyncio.TaskGroup` leave behind (CPython before 3.13).

If a child fails while the group is being left, the group cancels its own task and never withdraws that. Such a
cancellation is distinguished from one that middleware requested by the place where it arrives: inside of the
`__aexit__` of a group that has an error. Its `repr` is the only public source of the latter; the group of these
versions no longer changes.
"""

from __future__ import annotations

import sys

_LEAVE_CANCELLATIONS = sys.version_info < (3, 13)


class FailingGroups:
    """The task groups of one coroutine that have cancelled the task while they were left."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: set[object] = set()

    def __len__(self) -> int:
        return len(self._groups)

    def clear(self) -> None:
        """Forget the groups."""
        self._groups.clear()

    def note(self, work: object) -> None:
        """Note the group that has caused a cancellation which is about to be raised in the coroutine `work`."""
        group = _group_being_left(work) if _LEAVE_CANCELLATIONS else None
        if group is not None and " errors=" in repr(group):
            self._groups.add(group)


def _group_being_left(work: object) -> object | None:
    """The task group in whose `__aexit__` a suspended coroutine waits, or None."""
    frame, awaited = None, work
    while awaited is not None:
        frame = next((getattr(awaited, name) for name in _FRAMES if hasattr(awaited, name)), None)
        awaited = next((getattr(awaited, name) for name in _AWAITED if hasattr(awaited, name)), None)
        if frame is not None and frame.f_code.co_qualname == "TaskGroup.__aexit__":
            is_of_asyncio = frame.f_globals.get("__name__") == "asyncio.taskgroups"
            return frame.f_locals.get("self") if is_of_asyncio else None
    return None


_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")
