"""A store that has the port of runs and no capability."""

from __future__ import annotations

from typing import Any

from spine_async.ports import RunStore

METHODS = ("create", "claim", "renew", "request_stop", "commit", "load", "visits", "events", "runs", "delete")
PORT = frozenset({*METHODS, "open", "close"})


class PlainStore:
    """Forwards the methods of `RunStore` to another store, and has no others.

    Attributes:
        calls: The names of the methods that were called.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in PORT:
            raise AttributeError(name)

        async def forward(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            return await getattr(self._store, name)(*arguments, **named)

        return forward
