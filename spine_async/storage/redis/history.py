"""Reads the visits and events of a run, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spine_async._model.naming import is_inside, is_path
from spine_async._model.status import FINISHED
from spine_async._model.visit_filter import VisitFilter
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.storage.derived_events import has_events, merge_events
from spine_async.storage.redis import rows
from spine_async.storage.redis.keys import Keys, event_place, first_place, path_place, step_place
from spine_async.storage.redis.request import Argument, Request
from spine_async.storage.redis.scripts import EVENTS, FIELD, PLACE, SCOPES, VISITS, Script
from spine_async.storage.redis.server import RedisServer

_PAGE = 200


class RunHistory:
    """The rows of one run.

    Args:
        server: The server.
        keys: The keys of the store.
        run_id: The run.
    """

    def __init__(self, server: RedisServer, keys: Keys, run_id: str) -> None:
        self._server = server
        self._keys = (keys.run(run_id), keys.runs)
        self._run_id = run_id

    async def visits(self, chosen: VisitFilter) -> list[VisitRow]:
        """The visits that the filter selects."""
        if chosen.scopes is not None:
            return await self._of_scopes(list(dict.fromkeys(chosen.scopes)), chosen.after, chosen.limit)
        after = chosen.after
        if chosen.inside is not None:
            first = await self._ask(FIELD, first_place(chosen.inside)) if chosen.inside else None
            if first is None:
                return []
            after = max(after, int(first) - 1)
        return await self._shown(after, chosen.limit, chosen.inside)

    async def last_visit(self, step: str) -> VisitRow | None:
        """The last finished visit of a step, or the visit at a path if it has finished."""
        found = await self._ask(PLACE, path_place(step) if is_path(step) else step_place(step))
        visit = self._visit(found) if found is not None else None
        return visit if visit is not None and visit.status in FINISHED else None

    async def last_event(self, event_type: str, path: str) -> EventRow | None:
        """The last stored event of a type and path."""
        found = await self._ask(FIELD, event_place(event_type, path))
        return rows.read_event(self._run_id, found) if found is not None else None

    async def events(self, after: int, limit: int) -> list[EventRow]:
        """Stored and derived events, in order.

        The first answer has the state of one moment. Further pages leave out what was committed later.
        """
        next_seq, lines, visit_lines = await self._ask(EVENTS, after, limit)
        if next_seq is None:
            return []
        before, size = int(next_seq), limit + 1
        stored = [rows.read_event(self._run_id, each) for each in lines]
        visits = list[VisitRow]()
        while True:
            page = [rows.read_visit_line(self._run_id, each) for each in visit_lines]
            visits += filter(has_events, page)
            if len(page) < size or len(visits) >= size or page[-1].seq >= before:
                return merge_events(stored, visits, after, before)[:limit]
            _, _, visit_lines = await self._ask(EVENTS, page[-1].seq + 1, limit)

    async def _of_scopes(self, scopes: Sequence[str], after: int, limit: int | None) -> list[VisitRow]:
        """The visits of some scopes: a page by one call, or all of them page by page."""
        found: list[VisitRow] = []
        size = _PAGE if limit is None else limit
        while scopes:
            page = [self._visit(each) for each in await self._ask(SCOPES, after, size, len(scopes), *scopes)]
            found += page
            if limit is not None or len(page) < size:
                break
            after = page[-1].seq
        return found

    async def _shown(self, after: int, limit: int | None, path: str | None) -> list[VisitRow]:
        found: list[VisitRow] = []
        size = _PAGE if limit is None else min(_PAGE, limit)
        while limit is None or len(found) < limit:
            page = [self._visit(each) for each in await self._ask(VISITS, after, size)]
            found += [each for each in page if not each.is_hidden and (path is None or is_inside(each.scope, path))]
            if len(page) < size:
                break
            after = page[-1].seq
        return found[:limit]

    async def _ask(self, script: Script, *arguments: Argument) -> Any:
        return (await self._server.read([Request(script, self._keys, arguments)]))[0]

    def _visit(self, answer: Sequence[bytes]) -> VisitRow:
        return rows.read_visit(self._run_id, answer[0], answer[1])
