"""Who may do what: the callback `authorize`, and the names of the actions."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Literal, Protocol, TypeAlias

from spine_async._model.async_callable import is_async_callable
from spine_async.errors import DefinitionError

Action: TypeAlias = Literal[
    "list_workflows",
    "start_run",
    "list_runs",
    "read_run",
    "read_values",
    "send_signal",
    "stop_run",
    "resume_run",
    "delete_run",
]
"""What a caller wants to do.

`read_values` is asked in addition to the action of a request: whether the caller may see params, outputs, errors and
the data of events. If it is refused, the request is answered without the values.
"""


class Authorize(Protocol):
    """Decides about each request, and about each run that a listing shows."""

    def __call__(self, request: Any, action: Action, run_id: str | None = None) -> Awaitable[str | None]:
        """Decide about one action.

        Args:
            request: The request of the framework.
            action: What the caller wants to do.
            run_id: The run that the action is about; None if it is about no stored run.

        Returns:
            The principal: a text that identifies the caller, such as a user id. None refuses the action.
        """
        ...


async def allow_all(request: object, action: Action, run_id: str | None = None) -> str | None:
    """Allow everybody everything: for tests, and for servers that only trusted callers can reach."""
    return "everybody"


def check_authorize(authorize: object) -> None:
    """Raise `DefinitionError` if `authorize` is not an async function."""
    if not is_async_callable(authorize):
        raise DefinitionError(
            f"authorize is {authorize!r:.80}; it must be an async function(request, action, run_id=None) that returns "
            "the principal or None; `allow_all` allows everybody everything"
        )


def checked_principal(principal: object) -> str | None:
    """The answer of `authorize`.

    Raises:
        DefinitionError: It is neither None nor a text that identifies a caller.
    """
    if principal is None:
        return None
    if not isinstance(principal, str) or not principal:
        raise DefinitionError(
            f"authorize returned a value of type {type(principal).__name__}; it must return a text that identifies the "
            "caller, which is not empty, or None"
        )
    return principal
