"""Shows that a workflow ends in the same way wherever its process dies."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.run_claim import Claim
from spine_async._model.run_filter import RunFilter
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import SpineError, StoreUnavailableError
from spine_async.ports import Clock, RunStore
from spine_async.runner import WorkflowRunner
from spine_async.storage.memory import MemoryRunStore
from spine_async.testing.faults import FaultInjectingStore, Method, Moment

ResultT = TypeVar("ResultT")
Compared = Callable[[WorkflowResult], object]

_RUN_ID = "assert_resumes"
_OUTPUTS_OF_WAITS = ({"until"}, {"value", "received_at", "timed_out"})
_TIMES = frozenset({"until", "received_at"})
_COMMITS = frozenset({"commit", "transact", "release_run"})
_log = logging.getLogger("spine_async")


async def assert_resumes(
    workflow: Workflow,
    params: Mapping[str, object] | None = None,
    *,
    signals: Mapping[str, object] | None = None,
    compare: Compared | None = None,
    clock: Clock | None = None,
    config: WorkflowRunnerConfig | None = None,
) -> int:
    """Execute a workflow undisturbed, then kill it before and after each of its commits, and resume it each time.

    Each run is executed in the background on a store in memory. A killed run is continued by another runner, which
    has nothing but what was stored. The handlers are really called, those of interrupted steps more than once.

    Args:
        workflow: The workflow.
        params: Its params.
        signals: Values by the names of the signals that the run is sent after its start.
        compare: What must be the same for all runs; None compares the status, the error, and the outputs of all steps,
            without the times in outputs of waits.
        clock: A `VirtualClock` for workflows with long waits, on an event loop with virtual time (`run_virtual`).
        config: Settings of the runners.

    Returns:
        How often the workflow was killed.

    Raises:
        AssertionError: A killed run has ended in another way; the message names the commit and both ends.
    """
    trial = _Trial(workflow, params, signals or {}, compare or _end_of, clock, config)
    undisturbed, commits = await trial.run(0, "before")
    kills = 0
    for number in range(1, commits + 1):
        for moment in ("before", "after"):
            end, _ = await trial.run(number, "before" if moment == "before" else "after")
            kills += 1
            if end != undisturbed:
                raise AssertionError(
                    f"workflow {workflow.name!r}, killed {moment} commit {number} of {commits}, ended with {end!r}; "
                    f"undisturbed it ends with {undisturbed!r}"
                )
    return kills


@dataclass(slots=True)
class _Trial:
    """Executes the workflow with a death at one commit."""

    workflow: Workflow
    params: Mapping[str, object] | None
    signals: Mapping[str, object]
    compare: Compared
    clock: Clock | None
    config: WorkflowRunnerConfig | None

    async def run(self, number: int, moment: Moment) -> tuple[object, int]:
        """What `compare` returns for the run, and the number of its commits; `number` 0 kills nothing."""
        memory = MemoryRunStore(self.clock)
        mortal = _MortalStore(memory, number, moment)
        result = await self._until_end_or_death(mortal)
        if result is None:
            await _release(memory)
            result = await self._continued(memory)
        return self.compare(result), mortal.commits

    async def _until_end_or_death(self, store: _MortalStore) -> WorkflowResult | None:
        """The result, or None if the store died."""
        was_disabled, _log.disabled = _log.disabled, store.dies
        try:
            async with self._runner(store) as runner:
                handle = await runner.start(self.workflow, params=self.params, run_id=_RUN_ID)
                await self._send(runner)
                result = await handle.result()
        except SpineError:
            if not store.is_dead:
                raise
            return None
        finally:
            _log.disabled = was_disabled
        return None if store.is_dead else result

    async def _continued(self, store: RunStore) -> WorkflowResult:
        async with self._runner(store) as runner:
            record = await runner.get_run(_RUN_ID)
            if not record.status.is_final:
                await self._send(runner)
            return await runner.handle(_RUN_ID).result()

    async def _send(self, runner: WorkflowRunner) -> None:
        for name, value in self.signals.items():
            await runner.signal(_RUN_ID, name, value, idempotency_key=name)

    def _runner(self, store: RunStore) -> WorkflowRunner:
        return WorkflowRunner(store=store, config=self.config, clock=self.clock, workflows=[self.workflow])


class _MortalStore(FaultInjectingStore):
    """The store of a process that dies at a commit: nothing reaches it afterwards."""

    def __init__(self, store: RunStore, number: int, moment: Moment) -> None:
        super().__init__(store)
        self._number = number
        self._moment = moment
        self.commits = 0
        self.is_dead = False

    @property
    def dies(self) -> bool:
        """Whether a death is planned."""
        return self._number > 0

    async def _call(self, method: Method, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        is_last = False
        if method in _COMMITS and not self.is_dead:
            self.commits += 1
            is_last = self.commits == self._number
        self.is_dead = self.is_dead or (is_last and self._moment == "before")
        self._require_life()
        result = await work()
        self.is_dead = self.is_dead or is_last
        self._require_life()
        return result

    def _require_life(self) -> None:
        if self.is_dead:
            raise StoreUnavailableError("the process that used this store was killed by assert_resumes")


async def _release(store: MemoryRunStore) -> None:
    """Take the runs from the owner that has died, as a worker does when it finds that a process is gone."""
    for run in await store.runs(RunFilter(is_under_way=True)):
        if run.owner is not None:
            await store.renew([Claim(run.run_id, run.key, run.epoch, run.next_seq)], 0.0)


def _end_of(result: WorkflowResult) -> dict[str, Any]:
    form = result.to_dict()
    outputs = {step: _without_times(output) for step, output in form["context"]["outputs"].items()}
    return {"status": form["status"], "error": form["error"], "outputs": outputs}


def _without_times(output: Any) -> Any:
    """An output without the times at which waits end and signals arrive, also inside outputs of maps and branches."""
    if isinstance(output, list):
        return [_without_times(each) for each in output]
    if not isinstance(output, dict):
        return output
    is_of_wait = output.keys() in _OUTPUTS_OF_WAITS
    return {name: _without_times(value) for name, value in output.items() if not (is_of_wait and name in _TIMES)}
