"""Warns of settings of the server with which it loses runs."""

from __future__ import annotations

import logging
from typing import Any

from spine_async.storage.redis.driver import Redis, exceptions

_log = logging.getLogger("spine_async")


async def warn_of_settings(client: Redis, location: str) -> None:
    """Log a warning for each setting with which the server loses runs; nothing if it does not show them."""
    persistence = await _info(client, "persistence")
    saves = await _setting(client, "save")
    if persistence.get("aof_enabled") == 0 and saves == "":
        _log.warning(
            "%s keeps nothing on its disk: a restart of the server loses all runs; set appendonly yes", location
        )
    policy = await _setting(client, "maxmemory-policy") or (await _info(client, "memory")).get("maxmemory_policy")
    if isinstance(policy, str) and policy.startswith("allkeys-"):
        _log.warning(
            "%s may remove runs when its memory is used up (maxmemory-policy %s); set maxmemory-policy noeviction",
            location,
            policy,
        )


async def _info(client: Redis, section: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = await client.info(section)
    except exceptions.RedisError:
        return {}
    return found


async def _setting(client: Redis, name: str) -> str | None:
    try:
        found = await client.config_get(name)
    except exceptions.RedisError:
        return None
    return {_text(key): _text(each) for key, each in dict(found).items()}.get(name)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
