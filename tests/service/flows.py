"""Workflows whose steps write notes to a file and wait for files, so that processes share both."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from spine_async import (
    LocalDispatcher,
    RetryPolicy,
    Step,
    StepError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)

Config = Mapping[str, object]
LOOK_EVERY = 0.005
FOREVER = 3_600.0
SHORT_WAIT = 10.0  # seconds in which a slow machine starts five processes


class Notes:
    """Notes that steps of all processes append to one file, and gates that are files beside it."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._path = self._folder / "notes"

    def add(self, context: WorkflowContext, what: str = "began") -> None:
        path = str(context.idempotency_key).removeprefix(f"{context.run_id}/")
        resumed = bool(context.metadata.get("resumed"))
        self.write(what=what, run=context.run_id, path=path, attempt=context.attempt, resumed=resumed)

    def write(self, **fields: object) -> None:
        line = json.dumps({"pid": os.getpid(), "time": time.time(), **fields}) + "\n"
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)

    def read(self, **wanted: object) -> list[dict[str, Any]]:
        """The notes with these fields, in order."""
        if not self._path.exists():
            return []
        notes = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [note for note in notes if all(note.get(name) == value for name, value in wanted.items())]

    def begun(self, run: str) -> list[str]:
        """Paths of the attempts of this run that began, in order."""
        return [note["path"] for note in self.read(what="began", run=run)]

    def open_gate(self, name: str) -> None:
        (self._folder / f"gate-{name}").touch()

    def is_open(self, name: str) -> bool:
        return (self._folder / f"gate-{name}").exists()

    def is_first(self, name: str) -> bool:
        """Whether no process has asked this before.

        A step asks before it writes its note: the test may kill its process as soon as the note is there.
        """
        try:
            (self._folder / f"first-{name.replace('/', ',')}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    async def pass_gate(self, name: str) -> None:
        while not self.is_open(name):  # noqa: ASYNC110 (another process opens it)
            await anyio.sleep(LOOK_EVERY)


class Flows:
    """The workflows that every process of a test knows.

    Steps named `hold…` do not end in the process that executes them first. In later processes they end at once.
    """

    def __init__(self, folder: str | Path, version: int = 1) -> None:
        self.notes = Notes(folder)
        self.runner: WorkflowRunner | None = None
        self.dispatcher = LocalDispatcher()
        self.dispatcher.pipeline("hold")(self._hold_pipeline)
        self.by_name = {flow.name: flow for flow in self._all(version)}

    def _all(self, version: int) -> list[Workflow]:
        note = Step.lambda_("first", self.note)
        last = Step.lambda_("last", self.note)
        added = Step.lambda_("added", self.note)
        waits = Workflow(steps=[Step.lambda_("before", self.note), Step.wait("nap", 2.5), last])
        retry = RetryPolicy(max_attempts=2, backoff="constant", initial_delay=2.5, jitter=False)
        kinds = {
            "async": Step.lambda_("hold", self.hold),
            "sync": Step.lambda_("hold", self.hold_thread),
            "pipeline": Step.pipeline("hold", "hold", {"path": "hold"}),
            "map": Step.map("each", items=range(4), iterator=self.hold_odd_items),
            "wait": Step.wait("nap", 2.5),
            "waiting_map": Step.map("each", items=range(3), iterator=waits),
            "signal": Step.wait_for_signal("approval"),
            "retry": Step.lambda_("flaky", self.fail_first, retry=retry),
            "nested": Step.lambda_("hold", self.await_nested),
            "raises": Step.lambda_("hold", self.raise_when_cancelled),
        }
        flows = [Workflow(name, [note, step, last], version=version) for name, step in kinds.items()]
        flows += [
            Workflow("quick", [note], version=version),
            Workflow("brief", [Step.lambda_("brief", self.work_briefly)], version=version),
            Workflow("nested_child", [Step.lambda_("hold", self.hold), last], version=version),
            Workflow("gated", [note, Step.lambda_("gated", self.wait_for_gate), last], version=version),
            Workflow("long_wait", [note, Step.wait("nap", FOREVER), last], version=version),
            Workflow("short_wait", [note, Step.wait("nap", SHORT_WAIT), last], version=version),
            Workflow("rolling", [note, last] if version == 1 else [note, last, added], version=version),
            Workflow("streams", [note, Step.lambda_("stream", self.stream), last], version=version),
            Workflow("counts", [Step.lambda_("count", self.count)], version=version),
            Workflow("exits", [note, Step.lambda_("exit", self.exit)], version=version),
            Workflow("agent", [note, Step.lambda_("think", self.think), last], version=version),
        ]
        steps = [Step.lambda_("brief", self.work_briefly), Step.lambda_("again", self.work_briefly)]
        child = Workflow("family_child", steps, version=version)
        item = Workflow(steps=[Step.workflow("child", child, queue="default"), Step.lambda_("scored", self.note)])
        return [
            *flows,
            Workflow("family", [note, Step.map("each", items=range(3), iterator=item), last], version=version),
        ]

    async def note(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.notes.add(context)
        return {"run": context.run_id, "given": dict(context.params)}

    async def work_briefly(self, context: WorkflowContext, config: Config) -> None:
        self.notes.add(context)
        await anyio.sleep(0.02)
        self.notes.add(context, "ended")

    async def wait_for_gate(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        """Ends when the gate with the run's id is open."""
        self.notes.add(context)
        try:
            await self.notes.pass_gate(context.run_id)
        except BaseException:
            self.notes.add(context, "cancelled")
            raise
        return {"passed": True}

    async def hold(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        is_first = self._is_first(context)
        self.notes.add(context)
        await self._block_if(is_first)
        return {"held": True}

    def hold_thread(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        is_first = self._is_first(context)
        self.notes.add(context)
        if is_first:
            threading.Event().wait(FOREVER)
        return {"held": True}

    async def hold_odd_items(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        item = context.get_param("item")
        is_first = item % 2 == 1 and self._is_first(context)
        self.notes.add(context)
        await self._block_if(is_first)
        return {"item": item}

    async def fail_first(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        is_first = self._is_first(context)
        self.notes.add(context)
        if is_first:
            raise StepError("not yet", category="TRANSIENT")
        return {"attempt": "second"}

    async def await_nested(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.notes.add(context)
        return await self._execute("nested_child", f"{context.run_id}-child")

    async def stream(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        """Emits numbers, until the gate with the run's id is open."""
        self.notes.add(context)
        number = 0
        while not self.notes.is_open(context.run_id):
            context.emit("token", number)
            number += 1
            await anyio.sleep(LOOK_EVERY)
        return {"emitted": number}

    async def count(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        """Reports progress for ever in the process that executes it first; ends at once in later ones."""
        last = context.last_progress
        self.notes.write(what="progress", run=context.run_id, done=None if last is None else last.done)
        number = 0
        while last is None:
            number += 1
            context.progress(number)
            await anyio.sleep(LOOK_EVERY)
        return {}

    async def think(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        """Makes five calls; the third does not end in the process that executes it first."""
        async with anyio.create_task_group() as group:
            for tool in ("a", "b"):
                group.start_soon(context.once, "tool", self.call_tool, context.run_id, tool)
        await context.once("hold", self.call_holding, context.run_id)
        return {"said": [await context.once("tool", self.call_tool, context.run_id, tool) for tool in ("b", "c")]}

    async def call_tool(self, run: str, tool: str) -> str:
        self.notes.write(what="called", run=run, tool=tool)
        return tool.upper()

    async def call_holding(self, run: str) -> None:
        is_first = self.notes.is_first(f"{run}/hold")
        self.notes.write(what="called", run=run, tool="hold")
        await self._block_if(is_first)

    async def exit(self, context: WorkflowContext, config: Config) -> None:
        self.notes.add(context)
        raise SystemExit(3)

    async def raise_when_cancelled(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        is_first = self._is_first(context)
        self.notes.add(context)
        try:
            await self._block_if(is_first)
        except BaseException:
            raise ValueError("raised in a cancelled step")  # noqa: B904 (the handler hides the cancellation on purpose)
        return {"held": True}

    async def _hold_pipeline(self, params: Mapping[str, object]) -> dict[str, object]:
        is_first = self.notes.is_first(f"{params['run']}/hold")
        self.notes.write(what="began", run=params["run"], path="hold", attempt=1, resumed=False)
        await self._block_if(is_first)
        return {"held": True}

    async def _execute(self, name: str, run_id: str) -> dict[str, object]:
        assert self.runner is not None
        result = await self.runner.execute(self.by_name[name], run_id=run_id)
        result.raise_for_status()
        return {"steps": result.completed_steps}

    def _is_first(self, context: WorkflowContext) -> bool:
        return self.notes.is_first(f"{context.idempotency_key}")

    @staticmethod
    async def _block_if(is_first: bool) -> None:
        if is_first:
            await anyio.sleep(FOREVER)
