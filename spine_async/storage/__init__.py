"""Run stores. Modules are imported on first access, because the SQL store needs SQLAlchemy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spine_async.storage.file.store import FileRunStore
    from spine_async.storage.memory import MemoryRunStore
    from spine_async.storage.null import NullRunStore
    from spine_async.storage.redis.store import RedisRunStore
    from spine_async.storage.selection import open_store
    from spine_async.storage.sql.store import SqlRunStore
    from spine_async.storage.sql.upgrade import upgrade_schema

__all__ = [
    "FileRunStore",
    "MemoryRunStore",
    "NullRunStore",
    "RedisRunStore",
    "SqlRunStore",
    "open_store",
    "upgrade_schema",
]

_MODULES = {
    "FileRunStore": "spine_async.storage.file.store",
    "MemoryRunStore": "spine_async.storage.memory",
    "NullRunStore": "spine_async.storage.null",
    "RedisRunStore": "spine_async.storage.redis.store",
    "SqlRunStore": "spine_async.storage.sql.store",
    "open_store": "spine_async.storage.selection",
    "upgrade_schema": "spine_async.storage.sql.upgrade",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
