"""Which repetition of a visit is executed: it distinguishes an attempt that has begun before from a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spine_async._engine.state.scope import Visit


def repetition(visit: Visit) -> str:
    """The last resume of the run that is stored, and the attempts of the steps around the visit and of its own.

    It is the same after a crash, and after the run was parked, if the steps store the delays between their attempts.
    """
    return f"{visit.run.resumed_epoch}.{attempts(visit)}"


def attempts(visit: Visit) -> str:
    """The numbers of the current attempts: of the steps around the visit, the outermost first, then its own."""
    numbers, each = list[str](), visit
    while True:
        numbers.insert(0, str(each.attempts))
        if each.scope.parent is None:
            return ".".join(numbers)
        each = each.scope.parent


def is_repeated_from_outside(visit: Visit) -> bool:
    """Whether a step around the visit is in a later attempt than its first one."""
    parent = visit.scope.parent
    return parent is not None and (parent.attempts > 1 or is_repeated_from_outside(parent))
