"""Event streams that tell pages to load their changing parts again. They contain no values."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
from starlette.exceptions import HTTPException

from spine_async.dashboard.site import Visit
from spine_async.errors import StoreError
from spine_async.web import sse
from spine_async.web.asgi import EventStreamResponse
from spine_async.web.sse import EventStream

CHANGE, END = "change", "end"
PULSE = 2.0
"""Seconds between two reads of the store, for the pages that show all runs."""


class Pulse:
    """Reads the store once for all visitors, and reports whether something has changed."""

    def __init__(self) -> None:
        self._lock: anyio.Lock | None = None
        self._state = ""
        self._looked_mono = -PULSE

    async def state(self, visit: Visit) -> str:
        """A text that changes with what the pages show; at most `PULSE` seconds old."""
        self._lock = self._lock or anyio.Lock()
        async with self._lock:
            now_mono = anyio.current_time()
            if not 0 <= now_mono - self._looked_mono < PULSE * 0.9:
                self._state, self._looked_mono = await self._look(visit), anyio.current_time()
            return self._state

    async def _look(self, visit: Visit) -> str:
        counts = await visit.runner.count_runs(limit=10_000)
        newest = await visit.runner.list_runs(limit=1)
        queues = [
            (each.name, each.waiting, each.held, each.delayed, each.parked) for each in await visit.runner.queues()
        ]
        seen = repr((sorted(counts.items()), [each.run_id for each in newest], queues))
        return hashlib.sha256(seen.encode("utf-8", "surrogatepass")).hexdigest()


async def run_stream(visit: Visit) -> EventStreamResponse:
    """A message for each new event of a run, and one at its end."""
    run_id = visit.request.query_params.get("id", "")
    text = visit.request.headers.get("last-event-id") or visit.query("after") or "0"
    try:
        after = sse.parse_event_id(text)
    except ValueError as exc:
        raise HTTPException(400, str(exc)) from None
    await visit.runner.get_run(run_id, with_outputs=False)  # refuses an unknown run before the stream begins
    return EventStreamResponse(EventStream(_run_messages(visit, run_id, after), visit.site.notice))


async def _run_messages(visit: Visit, run_id: str, after: int) -> AsyncGenerator[bytes, None]:
    async with aclosing(visit.runner.events(run_id, after=after, follow=True)) as events:
        async for event in events:
            yield sse.message("{}", event=CHANGE, event_id=event.seq)
    yield sse.message("{}", event=END)


class PulseEndpoint:
    """Answers with a stream that has a message for each change of what the pages about all runs show."""

    def __init__(self) -> None:
        self._pulse = Pulse()

    async def __call__(self, visit: Visit) -> EventStreamResponse:
        """The stream."""
        return EventStreamResponse(EventStream(self._messages(visit), visit.site.notice))

    async def _messages(self, visit: Visit) -> AsyncGenerator[bytes, None]:
        seen = await self._pulse.state(visit)
        while True:
            await anyio.sleep(PULSE)
            try:
                state = await self._pulse.state(visit)
            except StoreError:
                continue  # the page stays as it is until the store answers again
            if state != seen:
                seen = state
                yield sse.message("{}", event=CHANGE)
