"""The Redis store: runs on a Redis server, for any number of hosts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from secrets import token_hex
from typing import Any

from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Busy, Claim, Renewal
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import TOKEN_BYTES, NewRun, StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.errors import StoreError
from spine_async.ports import CommitOutcome, DeleteIf
from spine_async.storage.redis import request, rows
from spine_async.storage.redis.driver import Redis
from spine_async.storage.redis.history import RunHistory
from spine_async.storage.redis.keys import Keys
from spine_async.storage.redis.listing import count_runs, list_runs
from spine_async.storage.redis.request import Request
from spine_async.storage.redis.scripts import DELETE, LOAD, NAMES, RENEW, STOP, Script
from spine_async.storage.redis.server import RedisServer, client_of
from spine_async.storage.redis.url import DEFAULT_PREFIX, check_prefix, parse_url


class RedisRunStore:
    """Stores runs on a Redis server, version 5 or later. One script makes each write.

    It supports runs and their recovery, but no queues, no signals, no forks and no transactions. What survives a
    restart of the server depends on its settings; see the page "Redis store" of the documentation.

    Args:
        server: URL of the server (`redis://`, `rediss://` or `unix://`), or a client of redis-py that answers with
            bytes, for instance `Sentinel.master_for(...)`. The store does not close a client of yours.
        prefix: Separates the stores on one server. None means that of the URL (`?prefix=name`), or `spine`.
        timeout: Limit for one call with its retries, in seconds.

    Raises:
        MissingExtraError: The package `redis` is not installed.
        StoreError: The URL, the prefix or the client cannot be used.
    """

    def __init__(self, server: str | Redis, *, prefix: str | None = None, timeout: float = 10.0) -> None:
        if isinstance(server, str):
            url = parse_url(server)
            prefix = prefix if prefix is not None else url.prefix
            self._server = RedisServer(partial(client_of, url.options), url.location, timeout)
        else:
            _check_client(server)
            self._server = RedisServer(lambda: server, "the given Redis client", timeout, is_given=True)
        self._keys = Keys(check_prefix(prefix if prefix is not None else DEFAULT_PREFIX))

    @property
    def location(self) -> str:
        """The server without credentials, for messages."""
        return self._server.location

    async def open(self) -> None:
        await self._server.open()

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        unique = dict[str, NewRun]()
        for new in runs:
            unique.setdefault(new.run_id, new)
        requests = [request.creation(self._keys, new) for new in unique.values()]
        answers = await self._server.call(requests) if requests else []
        claims = {run_id: _claim(run_id, answer) for run_id, answer in zip(unique, answers, strict=True)}
        return [claims.pop(new.run_id, None) for new in runs]

    async def claim(
        self,
        run_id: str,
        owner: str,
        event: EventRow | None,
        *,
        ttl: float,
        over_epoch: int | None = None,
        unless_ended: bool = False,
    ) -> Claim | Busy | None:
        asked = request.claim(
            self._keys,
            run_id,
            owner,
            event,
            ttl=ttl,
            over_epoch=over_epoch,
            unless_ended=unless_ended,
            token=_token(),
            now=_now(),
        )
        (answer,) = await self._server.call([asked])
        if answer is None or answer[0] == b"claim":
            return _claim(run_id, answer[1:] if answer is not None else None)
        return Busy(rows.decoded(answer[1]), int(answer[2]), rows.time_of(answer[3]))

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        arguments = request.milliseconds(ttl), _token(), _now()
        asked = [request.of_claim(self._keys, RENEW, each, *arguments) for each in claims]
        answers = await self._server.call(asked) if asked else []
        return [Renewal(bool(is_held), _optional_text(reason)) for is_held, reason in answers]

    async def request_stop(self, run_id: str, reason: str) -> bool:
        return bool(await self._ask(STOP, run_id, reason))

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        asked = [request.commit(self._keys, change) for change in changes]
        answers = await self._server.call(asked) if asked else []
        return [CommitOutcome.COMMITTED if answer else CommitOutcome.FENCED for answer in answers]

    async def load(self, run_id: str) -> StoredRun | None:
        names = rows.ALL_FIELDS
        (answer,) = await self._server.read([Request(LOAD, (self._keys.run(run_id), self._keys.runs), names)])
        return rows.read_run(names, answer[1], int(answer[0]), run_id) if answer is not None else None

    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        return await self._history(run_id).visits(chosen)

    async def last_visit(self, run_id: str, step: str) -> VisitRow | None:
        return await self._history(run_id).last_visit(step)

    async def last_event(self, run_id: str, event_type: str, path: str) -> EventRow | None:
        return await self._history(run_id).last_event(event_type, path)

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        return await list_runs(self._server, self._keys, chosen)

    async def count_runs(self, chosen: RunFilter) -> dict[RunStatus, int]:
        return await count_runs(self._server, self._keys, chosen)

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        return await self._history(run_id).events(after, limit)

    async def delete(self, run_ids: Sequence[str], condition: DeleteIf = DeleteIf.STORED) -> list[str]:
        unique = list(dict.fromkeys(run_ids))
        arguments = (_token(), int(condition is not DeleteIf.STORED), int(condition is DeleteIf.UNUSED))
        asked = [Request(DELETE, (self._keys.run(each), self._keys.runs), arguments) for each in unique]
        answers = await self._server.call(asked) if asked else []
        return [run_id for run_id, is_deleted in zip(unique, answers, strict=True) if is_deleted]

    async def workflow_names(self) -> list[str]:
        (names,) = await self._server.read([Request(NAMES, (self._keys.runs, self._keys.runs))])
        return sorted(map(rows.decoded, names))

    async def close(self) -> None:
        await self._server.close()

    async def _ask(self, script: Script, run_id: str, *arguments: str | int) -> Any:
        return (await self._server.call([Request(script, (self._keys.run(run_id), self._keys.runs), arguments)]))[0]

    def _history(self, run_id: str) -> RunHistory:
        return RunHistory(self._server, self._keys, run_id)


def _claim(run_id: str, answer: Sequence[bytes] | None) -> Claim | None:
    if answer is None:
        return None
    key, epoch, next_seq = map(int, answer)
    return Claim(run_id=run_id, key=key, epoch=epoch, next_seq=next_seq)


def _optional_text(value: bytes | None) -> str | None:
    return rows.decoded(value) if value is not None else None


def _token() -> str:
    return token_hex(TOKEN_BYTES)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _check_client(client: Redis) -> None:
    options = getattr(getattr(client, "connection_pool", None), "connection_kwargs", None)
    if options is None or not hasattr(client, "pipeline"):
        raise StoreError("the Redis store takes a URL or a redis.asyncio.Redis client")
    if options.get("decode_responses"):
        raise StoreError("the given Redis client decodes answers; create it with decode_responses=False")
