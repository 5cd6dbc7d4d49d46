"""The local dispatcher: the contract of dispatchers, its registry, and the context of pipelines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from spine_async import (
    AttemptEndedError,
    DefinitionError,
    LocalDispatcher,
    Pipelines,
    Progress,
    Step,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    pipeline_context,
)
from spine_async.dispatch import PipelineContext
from spine_async.storage import MemoryRunStore
from spine_async.testing import DispatcherConformance
from spine_async.testing.conformance.pipelines import CONFORMANCE_PIPELINES

pytestmark = pytest.mark.anyio


class TestLocalDispatcher(DispatcherConformance):
    @pytest.fixture
    def dispatcher(self) -> LocalDispatcher:
        return LocalDispatcher(pipelines=CONFORMANCE_PIPELINES)


def test_dispatchers_may_share_a_registry() -> None:
    pipelines = Pipelines()
    dispatcher = LocalDispatcher(pipelines=pipelines)

    @pipelines.pipeline("load")
    def load(params: Mapping[str, Any]) -> None: ...

    assert dispatcher.names == pipelines.names == ("load",)
    with pytest.raises(DefinitionError, match="already registered"):
        dispatcher.register("load", load)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such_module_here:load", "No module named 'no_such_module_here'"),
        ("spine_async:no_such_pipeline", "no_such_pipeline"),
        ("spine_async:__version__", "callable"),
        ("raises_at_import:load", "RuntimeError: no licence"),
        (":load", "cannot be imported"),
    ],
)
def test_a_module_that_has_no_such_pipeline(
    name: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raises_at_import.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(DefinitionError, match=problem):
        Pipelines().find(name)


async def test_outside_of_a_pipeline_the_context_keeps_progress_to_itself() -> None:
    context = pipeline_context()
    assert (context.run_id, context.step_name, context.attempt, context.is_cancelled) == ("", None, 0, False)
    context.check_cancelled()
    context.progress(1, 2)
    assert context.last_progress == Progress(1, 2)
    assert pipeline_context().last_progress is None
    with pytest.raises(DefinitionError, match="progress"):
        context.progress(-1)


async def test_progress_after_the_end_of_the_attempt_is_refused() -> None:
    kept: list[PipelineContext] = []
    dispatcher = LocalDispatcher()

    @dispatcher.pipeline("load")
    async def load(params: Mapping[str, Any]) -> None:
        kept.append(pipeline_context())

    runner = WorkflowRunner(store=MemoryRunStore(), dispatcher=dispatcher)
    (await runner.execute(Workflow("w", [Step.pipeline("step", "load")]))).raise_for_status()
    with pytest.raises(AttemptEndedError):
        kept[0].progress(1)
    assert pipeline_context() is not kept[0]


class Closable:
    """A dispatcher of a user that holds connections."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed = 0
        self.error = error

    async def submit(
        self, pipeline: str, params: Mapping[str, object], *, context: WorkflowContext
    ) -> Mapping[str, object]:
        return {"closed": self.closed}

    async def close(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error


async def test_a_dispatcher_is_closed_with_the_runner() -> None:
    dispatcher = Closable()
    flow = Workflow("w", [Step.pipeline("step", "load")])
    runner = WorkflowRunner(store=MemoryRunStore(), dispatcher=dispatcher)
    async with runner:
        for _ in range(2):
            assert (await runner.execute(flow)).context.get_output("step") == {"closed": 0}
        assert dispatcher.closed == 0
    assert dispatcher.closed == 1
    await runner.execute(flow)
    assert dispatcher.closed == 2


async def test_a_dispatcher_that_cannot_be_closed_is_logged_and_the_store_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = ClosingStore()
    async with WorkflowRunner(store=store, dispatcher=Closable(RuntimeError("gone"))):
        pass
    assert store.is_closed
    assert "the dispatcher could not be closed: RuntimeError: gone" in caplog.text


class ClosingStore(MemoryRunStore):
    is_closed = False

    async def close(self) -> None:
        self.is_closed = True
        await super().close()
