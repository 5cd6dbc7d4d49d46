"""Contract of `open` and `close`."""

from __future__ import annotations

from spine_async._model.run_filter import RunFilter
from spine_async.ports import RunStore
from spine_async.testing.conformance.rows import created, loaded


class OpenContract:
    """Opening creates no runs and may be repeated; a closed store opens again, explicitly or at its next use."""

    async def test_opening_makes_no_run(self, store: RunStore) -> None:
        await store.open()
        assert await store.runs(RunFilter()) == []

    async def test_an_open_store_may_be_opened_again(self, store: RunStore) -> None:
        await store.open()
        await created(store)
        await store.open()
        assert (await loaded(store)).run_id == "run-1"

    async def test_a_store_that_was_closed_opens_again(self, store: RunStore) -> None:
        await store.open()
        await created(store)
        await store.close()
        await store.open()
        assert (await loaded(store)).run_id == "run-1"

    async def test_a_store_that_was_never_opened_opens_when_it_is_used(self, store: RunStore) -> None:
        await created(store)
        await store.close()
        assert (await loaded(store)).run_id == "run-1"

    async def test_a_store_may_be_closed_unused(self, store: RunStore) -> None:
        await store.close()
        await store.open()
        await store.close()
        await store.close()
