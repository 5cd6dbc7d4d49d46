"""The idempotency key: one per step visit, the same for each attempt and each resume."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import ErrorPolicy, RetryPolicy, Step, Workflow, WorkflowContext

pytestmark = pytest.mark.anyio


class Keys:
    """Notes the key of each call, and fails every call until `mended`."""

    def __init__(self) -> None:
        self.by_item: dict[Any, list[str]] = defaultdict(list)
        self.mended = False

    async def __call__(self, context: WorkflowContext, config: Mapping[str, Any]) -> None:
        place = (context.step_name, context.params.get("outer"), context.params.get("item"))
        assert isinstance(context.idempotency_key, str)
        self.by_item[place].append(context.idempotency_key)
        if not self.mended:
            raise ConnectionError("gone")

    def assert_one_per_place(self, places: int, calls: int) -> None:
        assert len(self.by_item) == places
        assert {len(keys) for keys in self.by_item.values()} == {calls}
        assert all(len(set(keys)) == 1 for keys in self.by_item.values())
        assert len({keys[0] for keys in self.by_item.values()}) == places


RETRY = RetryPolicy(max_attempts=3, initial_delay=0, jitter=False)


async def test_attempts_and_resumes_share_it(make_runner: Any) -> None:
    keys = Keys()
    steps = [
        Step.lambda_("first", keys, retry=RETRY, on_error=ErrorPolicy.CONTINUE),
        Step.lambda_("second", keys, retry=RETRY),
    ]
    workflow = Workflow("w", steps)
    failed = await make_runner().execute(workflow)
    keys.assert_one_per_place(2, 3)
    keys.mended = True
    await make_runner().resume(failed.run_id, workflow=workflow)
    assert len(keys.by_item[("second", None, None)]) == 4
    assert len(set(keys.by_item[("second", None, None)])) == 1


async def test_it_differs_between_items(make_runner: Any) -> None:
    keys = Keys()
    inner = Workflow(steps=[Step.lambda_("x", keys, retry=RETRY, on_error=ErrorPolicy.CONTINUE)])
    outer = Workflow(steps=[Step.map("inner", items=[1, 2], iterator=inner)])
    step = Step.map("outer", items=["a", "b"], item_param="outer", iterator=outer)
    result = await make_runner().execute(Workflow("w", [step]))
    assert result.status == "completed"
    keys.assert_one_per_place(4, 3)


async def test_equal_items_have_their_own(make_runner: Any) -> None:
    keys = Keys()
    keys.mended = True
    await make_runner().execute(Workflow("w", [Step.map("each", items=["same", "same"], iterator=keys)]))
    (seen,) = keys.by_item.values()
    assert len(set(seen)) == 2


async def test_it_differs_between_runs(make_runner: Any) -> None:
    keys = Keys()
    keys.mended = True
    workflow = Workflow("w", [Step.lambda_("a", keys)])
    for _ in range(2):
        await make_runner().execute(workflow)
    assert len(set(keys.by_item[("a", None, None)])) == 2
