"""Reads the keys of a Redis store from outside, without its scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis

from spine_async.storage.derived_events import merge_events
from spine_async.storage.redis import rows
from spine_async.storage.redis.keys import hashed
from tests.chaos.checks import Stored

_ROWS = ("places", "scopes", "values", "visits", "events")


class RedisReader:
    """Reads a Redis server as `Reader` reads a database.

    Args:
        url: URL of the server with `?prefix=`.
    """

    def __init__(self, url: str) -> None:
        address, _, prefix = url.partition("?prefix=")
        self._client: Any = Redis.from_url(address)  # redis-py types every reply as any kind of reply
        self._tag = f"{{{prefix}}}"

    def read(self) -> Stored:
        stored = Stored({}, [], [])
        for key in self._client.scan_iter(f"{self._tag}:run:*", count=1000, _type="HASH"):
            if key.count(b":") == self._tag.count(":") + 2:
                self._read_run(key.decode(), stored)
        return stored

    def _read_run(self, key: str, stored: Stored) -> None:
        values = self._client.hmget(key, list(rows.FIELDS))
        run = rows.read_run(rows.FIELDS, values, 0)
        stored.runs[run.run_id] = run.status.value, run.epoch, run.next_seq
        lines = self._client.zrange(f"{key}:visits", 0, -1)
        blobs = self._client.hgetall(f"{key}:values")
        visits = [rows.read_visit(run.run_id, line, blobs.get(line.partition(b" ")[0], b"")) for line in lines]
        stored.steps += [(run.run_id, each.path, each.seq, each.epoch, each.commit_id) for each in visits]
        events = [rows.read_event(run.run_id, line) for line in self._client.zrange(f"{key}:events", 0, -1)]
        merged = merge_events(events, visits, 0, run.next_seq)
        stored.events += [(run.run_id, each.seq, str(each.event_type), each.path) for each in merged]

    def forget(self, runs: Sequence[str]) -> None:
        """Remove the keys of runs, without telling the indexes."""
        for run in runs:
            key = f"{self._tag}:run:{hashed(run)}"
            self._client.unlink(key, *(f"{key}:{name}" for name in _ROWS))

    def close(self) -> None:
        self._client.close()
