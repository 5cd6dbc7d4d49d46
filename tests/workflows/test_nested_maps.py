"""Maps whose items begin with a map: a resume finds the stored rows of the inner items."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from spine_async import RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async.storage import MemoryRunStore, SqlRunStore

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_no_inner_item_that_is_stored_runs_again(kind: str, depth: int, sqlite_url: str) -> None:
    ran: Counter[str] = Counter()
    is_broken = True

    async def leaf(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        ran[str(context.idempotency_key)] += 1
        if is_broken and context.get_param("i1") == 2:
            raise ValueError("broken")
        return {"item": context.get_param("i1")}

    iterator: Any = leaf
    for level in range(1, depth + 1):
        step = Step.map(f"m{level}", items=range(4), item_param=f"i{level}", iterator=iterator, max_concurrency=1)
        iterator = Workflow(steps=[step])
    workflow = Workflow("w", [step])
    store = MemoryRunStore() if kind == "memory" else SqlRunStore.from_url(sqlite_url)
    first = await WorkflowRunner(store=store).execute(workflow, run_id="r")
    assert first.status == RunStatus.FAILED
    is_broken = False
    second = await WorkflowRunner(store=store).resume("r", workflow=workflow)
    assert second.status == RunStatus.COMPLETED
    assert len(ran) == 4**depth
    assert [key for key, times in ran.items() if times > 1] == [
        f"r/{'/'.join(f'm{n}[0]' for n in range(depth, 1, -1))}/m1[2]/item"
    ]
    await store.close()
