"""The conformance suite finds stores that are wrong: each fails the case that is meant for it."""

from __future__ import annotations

import inspect

import pytest

from spine_async.storage import MemoryRunStore
from spine_async.testing import RunStoreConformance
from tests.storage.wrong import WRONG, PartitionsComparedAsText

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("kind", "case"), WRONG.items(), ids=[kind.__name__ for kind in WRONG])
async def test_a_wrong_store_fails_the_case_that_is_meant_for_it(kind: type[MemoryRunStore], case: str) -> None:
    check = getattr(RunStoreConformance(), case)
    assert list(inspect.signature(check).parameters) == ["store"]
    await check(MemoryRunStore())
    with pytest.raises(AssertionError):
        await check(kind())


async def test_a_partition_that_is_compared_as_text_is_found() -> None:
    check = RunStoreConformance().test_a_filter_by_an_entry_of_the_partition
    name, value, others = "day", 1, [10, "1"]
    await check(MemoryRunStore(), name, value, others)
    with pytest.raises(AssertionError):
        await check(PartitionsComparedAsText(), name, value, others)
