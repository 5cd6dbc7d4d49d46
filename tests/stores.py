"""The stores in turn: the one in memory has all capabilities of the routes and pages, the other two have few."""

from __future__ import annotations

from pathlib import Path

import pytest

from spine_async.ports import RunStore
from spine_async.storage import FileRunStore, MemoryRunStore, RedisRunStore

STORES = ("memory", "file", "redis")


def store_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> RunStore:
    """A store of this kind, without runs."""
    if kind == "memory":
        return MemoryRunStore()
    if kind == "file":
        return FileRunStore(str(folder / "runs"))
    return RedisRunStore(request.getfixturevalue("redis_store_url"))
