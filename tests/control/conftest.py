"""Places where runs are stored, and handlers that note their calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spine_async import Step, WorkflowContext
from tests.contract.conftest import sql
from tests.service.places import Place

__all__ = ["sql"]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty store that runners of this process share, of each kind in turn."""
    if request.param == "memory":
        return Place(None)
    return Place(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "cleared_postgres_url"))


@pytest.fixture
def memory() -> Place:
    """An empty store in memory."""
    return Place(None)


class Trace:
    """Makes steps that note the order in which they ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.errors: dict[str, Any] = {}

    def step(self, name: str, *, sees: str | None = None, **options: Any) -> Step:
        """A step that completes; `sees` is a step whose error it notes."""

        async def handler(context: WorkflowContext, config: dict[str, Any]) -> dict[str, int]:
            self.ran.append(name)
            if sees is not None:
                self.errors[name] = (context.get_error(sees), context.has_output(sees), context.get_output(sees))
            return {"visit": self.ran.count(name)}

        return Step.lambda_(name, handler, **options)

    def failing(
        self, name: str, error: Callable[[], BaseException] = lambda: ConnectionError("gone"), **options: Any
    ) -> Step:
        """A step that fails in each attempt."""

        async def handler(context: WorkflowContext, config: dict[str, Any]) -> None:
            self.ran.append(name)
            raise error()

        return Step.lambda_(name, handler, **options)


@pytest.fixture
def trace() -> Trace:
    return Trace()
