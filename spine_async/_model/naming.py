"""Rules for names and run ids."""

from __future__ import annotations

from spine_async._model.shown import shown
from spine_async._model.status import EventType
from spine_async.errors import InvalidRunIdError

MAX_NAME_LENGTH = 200
MAX_RUN_ID_LENGTH = 200

COMPENSATION_MARK = "~compensate"
"""Suffix of the path and of the name of a visit that compensates another one."""

_PATH_CHARACTERS = "/[]#@"


def name_problem(name: object) -> str | None:
    """Why `name` cannot be the name of a step, or None if it can.

    Stored paths such as `review#3` and `process_all[17]/resize` use `/ [ ] # @`, so a name must not contain them.
    """
    problem = text_problem(name, MAX_NAME_LENGTH)
    if problem is None and any(character in str(name) for character in _PATH_CHARACTERS):
        reserved = " ".join(_PATH_CHARACTERS)
        return f"the name {name!r} contains one of the characters {reserved}, which are reserved for paths"
    if problem is None and str(name).endswith(COMPENSATION_MARK):
        return f"the name {name!r} ends with {COMPENSATION_MARK}, which is reserved for compensations"
    return problem


def is_path(text: str) -> bool:
    """Whether the text is the path of a visit and not the name of a step, such as `review#3`."""
    return any(character in text for character in _PATH_CHARACTERS)


def is_inside(scope: str, path: str) -> bool:
    """Whether a scope lies inside the visit at `path`: `m[1]` and `m[1]/c` inside `m`, `c` and `c/m[1]` inside `c`."""
    end = len(path)
    return end > 0 and scope.startswith(path) and scope[end : end + 1] in _AFTER_VISIT


_AFTER_VISIT = frozenset({"", "/", "["})


def text_problem(text: object, limit: int) -> str | None:
    """Why `text` cannot be a name or id of at most `limit` characters, or None if it can."""
    if not isinstance(text, str):
        return f"a name must be a string, not {type(text).__name__}"
    if not text.strip():
        return "a name must not be empty"
    if len(text) > limit:
        return f"a name of {len(text):,} characters is too long; at most {limit} are allowed"
    if not text.isprintable():
        return "a name must not contain control characters or lone surrogates"
    return None


def event_type_problem(event_type: object) -> str | None:
    """Why a step cannot add an event of this type, or None if it can."""
    problem = text_problem(event_type, MAX_NAME_LENGTH)
    if problem is None and event_type in _RESERVED_EVENT_TYPES:
        return f"{event_type!r} is one of the runner's own event types"
    return problem


_RESERVED_EVENT_TYPES = frozenset(EventType)


def check_run_id(run_id: object) -> str:
    """Check and return `run_id`.

    Raises:
        InvalidRunIdError: It is empty, longer than 200 characters, or holds characters that cannot be printed.
    """
    problem = text_problem(run_id, MAX_RUN_ID_LENGTH)
    if problem is not None:
        text = str.__str__(run_id)[:40] if isinstance(run_id, str) else shown(run_id, 40)
        text = text.encode("utf-8", "backslashreplace").decode()
        raise InvalidRunIdError(text, f"invalid run id {text!r}: {problem.replace('a name', 'a run id', 1)}")
    return str.__str__(run_id)
