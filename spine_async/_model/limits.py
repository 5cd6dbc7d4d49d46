"""Limits that a definition and its values must keep, so that each database can store them.

They are the same for every store: a run that works on one works on the others.
"""

from __future__ import annotations

from collections.abc import Iterable

from spine_async._model.status import StepType
from spine_async._model.step import Step

MAX_STORED_INT = 2**31 - 1
"""PostgreSQL `integer`."""

MAX_PATH_BYTES = 2_600
"""Bytes of the path of a visit, in UTF-8. A PostgreSQL index accepts rows of 2,704 bytes with their headers.

The path of a recorded call has up to 33 bytes more than this.
"""

MAX_VALUE_BYTES = 256 * 1024 * 1024
"""Largest `max_value_bytes`. A field of PostgreSQL holds 1 GiB at most, a row of SQLite 1,000,000,000 bytes."""

MAX_RECORD_BYTES = 512 * 1024 * 1024
"""Bytes of all values that one step returns, or with which one run starts, because they are stored in one row."""

MAX_LEASE_TTL = 1e9
"""Seconds. Databases and Python can represent a time this far in the future."""

# In `review#3` and `process_all[17]/resize` the numbers have at most ten digits.
_VISIT_BYTES = len("#2147483647")
_ITEM_BYTES = len("[2147483647]/")
_MARK_BYTES = len("@until")
_SIGNAL_MARK_BYTES = len("@rejected#9223372036854775807")


def longest_path_bytes(steps: Iterable[Step]) -> int:
    """Bytes of the longest path that a visit of one of the steps, or of a step inside of them, can have."""
    return max(_longest_path_bytes(step) for step in steps)


def path_problem(step: Step) -> str | None:
    """Why the paths of visits of the step, or of the steps inside of it, are too long, or None."""
    longest = _longest_path_bytes(step)
    if longest <= MAX_PATH_BYTES:
        return None
    return (
        f"with steps inside of each other, the path of a step can have {longest:,} bytes in UTF-8, more than the "
        f"{MAX_PATH_BYTES:,} that every database can store; use shorter names or fewer nested steps"
    )


def _longest_path_bytes(step: Step) -> int:
    own = len(step.name.encode()) + _VISIT_BYTES
    if not step.inner:
        return own + (_SIGNAL_MARK_BYTES if step.step_type is StepType.SIGNAL else _MARK_BYTES)
    inside = max(_key_bytes(step, key) + longest_path_bytes(each.steps) for key, each in step.inner.items())
    return own + inside


def _key_bytes(step: Step, key: str) -> int:
    """Bytes between the name of a step and that of a step inside of it: of `[17]/`, `[branch]/` or `/`."""
    if step.step_type is StepType.MAP:
        return _ITEM_BYTES
    return len(f"[{key}]/".encode()) if key else len("/")
