"""Gives the items of a map to its workers, after a comparison with the items that are stored.

Stored results belong to one value of an item at one index. So before any item runs, the feed is read up to the last
index with stored rows, and each item is compared with the stored one. If an item differs, no step runs and nothing is
committed. Until then, unfinished items are kept in memory, because an iterator cannot be read twice.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass

from spine_async._engine.handlers.feed import Feed
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.interrupts import Draining, ResumeRefused
from spine_async._engine.state.item_digest import item_digest, large_digest
from spine_async._engine.state.map_progress import MapProgress
from spine_async._model.document import Document, encode
from spine_async._model.large_document import encode_in_pieces, is_large
from spine_async.errors import SerializationError, StepError


@dataclass(slots=True)
class Item:
    """An item of a map.

    Attributes:
        index: Its index.
        document: Its JSON form.
        digest: Its digest; 0 if digests are not kept.
        value: The value that the map got, to be compared with what the model of the iterator makes of it; None if the
            iterator has no model.
    """

    index: int
    document: Document
    digest: int
    value: object


class ItemQueue:
    """The items of one attempt of a map that are not finished.

    Args:
        runtime: What all runs share.
        progress: What is stored of the map.
        feed: Its items.
        keeps_values: Whether the items contain their values.
    """

    def __init__(self, runtime: Runtime, progress: MapProgress, feed: Feed, *, keeps_values: bool) -> None:
        self._runtime = runtime
        self._progress = progress
        self._feed = feed
        self._keeps_values = keeps_values
        self._held: deque[Item] = deque()

    async def compare(self, last_index: int) -> None:
        """Compare the items up to `last_index` with the stored ones.

        Raises:
            ResumeRefused: An item differs, or there are fewer items.
            StepError: An item has no strict JSON form; category INTERNAL.
            Draining: The runner is shutting down.
        """
        held = []
        while self._feed.taken <= last_index:
            if self._runtime.is_draining:
                raise Draining
            entry = await self._feed.next()
            if entry is None:
                problem = f"the item is stored, but the map now has only {self._feed.taken} items"
                raise ResumeRefused(self._progress.changed(last_index, problem))
            item = await self._compared(*entry)
            if item.index not in self._progress.finished:
                held.append(item)
            await self._runtime.journal.defer()
        # Items that have begun come first: their own inner maps compare stored items before further items begin.
        held.sort(key=lambda each: each.index not in self._progress.stored)
        self._held.extend(held)

    async def next(self) -> Item | None:
        """The next item, or None when there are no more.

        Raises:
            StepError: The item has no strict JSON form; category INTERNAL.
        """
        if self._held:
            return self._held.popleft()
        entry = await self._feed.next()
        return await self._item(*entry) if entry is not None else None

    async def _item(self, index: int, value: object) -> Item:
        keeps = self._progress.keeps_digests
        try:
            if is_large(value):
                # The size is checked with those of other values, when the item is stored.
                document = await self._runtime.run_on_thread(encode_in_pieces, value, sys.maxsize)
                digest = await self._runtime.run_on_thread(large_digest, document.text) if keeps else 0
            else:
                document = encode(value)
                digest = item_digest(document.text) if keeps else 0
        except SerializationError as exc:
            raise StepError(f"items[{index}] has no strict JSON form: {exc}") from None
        return Item(index, document, digest, value if self._keeps_values else None)

    async def _compared(self, index: int, value: object) -> Item:
        try:
            item = await self._item(index, value)
        except StepError:
            if self._progress.has_item(index):
                raise ResumeRefused(self._progress.changed(index, _DIFFERS)) from None
            raise
        if not self._progress.is_same_item(index, item.digest):
            raise ResumeRefused(self._progress.changed(index, _DIFFERS))
        if self._progress.has_item(index):
            self._progress.keep_digest(index, item.digest)  # a row of an older version may lack it
        return item


_DIFFERS = "the item differs from the one stored at this index"
