from __future__ import annotations

import anyio
import pytest

from spine_async.errors import StoreUnavailableError
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore
from spine_async.testing.conformance.rows import change, created, new_run, visit


@pytest.fixture
def store() -> FaultInjectingStore:
    return FaultInjectingStore(MemoryRunStore())


async def test_a_fault_before_a_call_means_that_nothing_was_done(store: FaultInjectingStore) -> None:
    store.fail("create", moment="before")
    with pytest.raises(StoreUnavailableError, match="injected fault before call 1 of create"):
        await store.create([new_run()])
    assert await store.load("run-1") is None


async def test_a_fault_after_a_call_means_that_it_was_done(store: FaultInjectingStore) -> None:
    claim = await created(store)
    store.fail("commit", moment="after", error=OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        await store.commit([change(claim, [visit("fetch", 2)])])
    assert len(await store.visits("run-1")) == 1


async def test_only_the_named_call_fails(store: FaultInjectingStore) -> None:
    store.fail("load", call=2)
    assert await store.load("run-1") is None
    with pytest.raises(StoreUnavailableError):
        await store.load("run-1")
    assert await store.load("run-1") is None
    assert store.calls == {"load": 3}


async def test_a_call_hangs_until_it_is_released(store: FaultInjectingStore) -> None:
    hang = store.hang("create", moment="before")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.create, [new_run()])
        await hang.reached.wait()
        assert await store.load("run-1") is None
        hang.release.set()
    assert await store.load("run-1") is not None
