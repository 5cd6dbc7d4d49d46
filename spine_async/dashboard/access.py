"""Who may see what: the callback `access`, and what its answer permits."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request

from spine_async.errors import DefinitionError

Level: TypeAlias = Literal["all", "read"]
Access: TypeAlias = Callable[[Request], Level | Awaitable[Level | None] | None]
"""Decides about each request: `all` permits everything, `read` permits looking, None refuses. Plain or async.

It may also raise an `HTTPException` of Starlette, for instance one that redirects to a page for the login.
"""


@dataclass(frozen=True, slots=True)
class Permission:
    """The rights of a request.

    Attributes:
        may_act: Whether it may stop, resume, fork and signal runs, and change schedules.
        sees_values: Whether it is shown params, outputs, errors and the data of events.
    """

    may_act: bool
    sees_values: bool


class Gatekeeper:
    """Asks `access` about requests.

    Args:
        access: The callback.
        readers_see_values: Whether `read` includes values.

    Raises:
        DefinitionError: `access` is not callable, or the other argument is no boolean.
    """

    def __init__(self, access: Access, *, readers_see_values: bool) -> None:
        if not callable(access):
            raise DefinitionError(
                f"access is {access!r:.80}; it must be a function(request) that returns 'all', 'read' or None"
            )
        if not isinstance(readers_see_values, bool):
            raise DefinitionError(f"readers_see_values is {readers_see_values!r:.80}; it must be True or False")
        self._access = access
        self._readers_see_values = readers_see_values

    async def permission(self, request: Request) -> Permission:
        """The rights of the request.

        Raises:
            HTTPException: It is refused (403), or `access` raised it.
            DefinitionError: `access` returned something else.
        """
        answer = self._access(request)
        level = await answer if inspect.isawaitable(answer) else answer
        if level is None:
            raise HTTPException(403, "You have no access to this dashboard.")
        if level not in {"all", "read"}:
            raise DefinitionError(f"access returned {level!r:.80}; it must return 'all', 'read' or None")
        is_all = level == "all"
        return Permission(may_act=is_all, sees_values=is_all or self._readers_see_values)
