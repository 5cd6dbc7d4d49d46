"""The raw limits of the stores without SQL: a file that is appended to, and a script on a Redis server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from redis.asyncio import Redis

Row = tuple[int, int, str]

_APPEND = "for index = 1, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[index]) end return #ARGV"


class AppendedFile:
    """One file, in a worker thread: one write of JSON lines and one `fsync` for each commit."""

    def __init__(self, place: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        folder = Path(place)
        folder.mkdir()
        self._file = os.open(folder / "rows", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def insert(self, row: Row) -> None:
        await self.insert_many([row])

    async def insert_many(self, rows: Sequence[Row]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._append, rows)

    async def close(self) -> None:
        self._thread.shutdown()
        os.close(self._file)

    def _append(self, rows: Sequence[Row]) -> None:
        os.write(self._file, "".join(json.dumps(row) + "\n" for row in rows).encode())
        os.fsync(self._file)


class RedisList:
    """redis.asyncio: one EVALSHA for each commit, which appends the rows to a list."""

    def __init__(self, client: Redis, script: str, key: str) -> None:
        self._client = client
        self._script = script
        self._key = key

    @classmethod
    async def opened(cls, place: str) -> RedisList:
        from redis.asyncio import Redis  # noqa: PLC0415 - not needed for the others

        parts = urlsplit(place)
        client: Redis = Redis.from_url(parts._replace(query="").geturl())
        (prefix,) = parse_qs(parts.query)["prefix"]
        return cls(client, await client.script_load(_APPEND), prefix)

    async def insert(self, row: Row) -> None:
        await self.insert_many([row])

    async def insert_many(self, rows: Sequence[Row]) -> None:
        answer: Any = self._client.evalsha(self._script, 1, self._key, *(json.dumps(row) for row in rows))
        await answer

    async def close(self) -> None:
        await self._client.aclose()
