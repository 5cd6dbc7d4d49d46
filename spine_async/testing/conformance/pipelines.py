"""The pipelines that the conformance suite of dispatchers runs.

They tell the tests what they see through their results and through files in a folder, which is a param. So a pipeline
may run in any process that shares the folder with the test.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
from anyio import to_thread
from opentelemetry.trace import get_current_span
from pydantic import BaseModel

from spine_async._model.quality import QualityMetrics
from spine_async._model.step_result import StepEvent, StepResult
from spine_async.dispatch import Pipelines, pipeline_context
from spine_async.errors import StepError

CONFORMANCE_PIPELINES = Pipelines()
"""Their registry; `spine_async.testing.conformance.pipelines:CONFORMANCE_PIPELINES`."""

Params = Mapping[str, Any]

_LONGEST = 60.0
"""Seconds after which a pipeline gives up waiting, so that no failing test leaves one behind."""

_POLL = 0.01


class ConformanceError(Exception):
    """An exception of user code."""


class Row(BaseModel):
    """An output of user code."""

    rows: int


@dataclass
class Counted:
    """The same as a dataclass."""

    rows: int


class LimitError(OSError):
    """An exception with a hint for the retry."""

    retry_after = 7.5


_RETURNED: Mapping[str, Callable[[], object]] = {
    "mapping": lambda: {"rows": 3, "text": "über\u2028 \U0001f600", "nested": [{"a": None, "b": [1.5, True]}]},
    "model": lambda: Row(rows=3),
    "dataclass": lambda: Counted(rows=3),
    "none": lambda: None,
    "ok": lambda: StepResult.ok(
        {"rows": 3},
        context_updates={"table": "new"},
        quality=QualityMetrics(record_count=3, valid_count=2),
        events=[StepEvent("loaded", {"rows": 3})],
        append={"seen": [1, 2]},
    ),
    "skip": lambda: StepResult.skip("nothing new", {"rows": 0}),
    "stop": lambda: StepResult.stop("enough", {"rows": 1}),
    "fail": lambda: StepResult.fail("queue is full", "DEPENDENCY", output={"rows": 1}, retry_after=7.5),
    "own_category": lambda: StepResult.fail("no money", "BUDGET"),
    "list": lambda: ["hunter2"],
    "object": lambda: {"rows": object()},
    "large": lambda: {"text": "x" * 2_000_000},
}


def _validation_error() -> Exception:
    try:
        Row.model_validate({"rows": "hunter2"})
    except ValueError as exc:
        return exc
    raise AssertionError


_RAISED: Mapping[str, Callable[[], Exception]] = {
    "own": lambda: ConformanceError("no number"),
    "connection": lambda: ConnectionError("no route"),
    "timeout": lambda: TimeoutError("no answer"),
    "step_error": lambda: StepError("quota used up", category="DEPENDENCY", retry_after=7.5),
    "hint": lambda: LimitError("too many requests"),
    "validation": _validation_error,
    "group": lambda: ExceptionGroup("two", [ConformanceError("first"), ConnectionError("second")]),
}


@CONFORMANCE_PIPELINES.pipeline("conformance.echo")
def echo(params: Params) -> dict[str, Any]:
    """Return the params and the step."""
    context = pipeline_context()
    return {
        "params": dict(params),
        "run_id": context.run_id,
        "step": context.step_name,
        "attempt": context.attempt,
        "key": context.idempotency_key,
        "cancelled": context.is_cancelled,
        "reason": context.cancel_reason,
    }


@CONFORMANCE_PIPELINES.pipeline("conformance.echo_async")
async def echo_async(params: Params) -> dict[str, Any]:
    """Return the params and the step, from an event loop."""
    await anyio.lowlevel.checkpoint()
    return echo(params)


@CONFORMANCE_PIPELINES.pipeline("conformance.return")
def return_value(params: Params) -> Any:
    """Return a value of a kind."""
    return _RETURNED[params["kind"]]()


@CONFORMANCE_PIPELINES.pipeline("conformance.raise")
def raise_error(params: Params) -> None:
    """Raise an exception of a kind."""
    try:
        raise KeyError("hunter2")
    except KeyError as exc:
        error = _RAISED[params["kind"]]()
        raise error from exc


@CONFORMANCE_PIPELINES.pipeline("conformance.raise_async")
async def raise_error_async(params: Params) -> None:
    """Raise an exception of a kind, in an event loop."""
    raise_error(params)


@CONFORMANCE_PIPELINES.pipeline("conformance.fail_first")
def fail_first(params: Params) -> dict[str, int]:
    """Raise in all attempts but the last of `attempts`."""
    attempt = pipeline_context().attempt
    if attempt < params["attempts"]:
        error = _RAISED[params["kind"]]()
        raise error
    return {"attempt": attempt}


@CONFORMANCE_PIPELINES.pipeline("conformance.poll")
def poll(params: Params) -> None:
    """Run until it reads that it is cancelled, and write the reason to `ended`."""
    _note_begin(params)
    _wait(lambda: pipeline_context().is_cancelled)
    _write(params, "ended", str(pipeline_context().cancel_reason))
    pipeline_context().check_cancelled()


@CONFORMANCE_PIPELINES.pipeline("conformance.poll_in_thread")
def poll_in_thread(params: Params) -> None:
    """As `poll`, in a thread of the pipeline's own, which was given the context."""
    context = pipeline_context()
    _note_begin(params)
    thread = threading.Thread(target=_wait, args=(lambda: context.is_cancelled,))
    thread.start()
    thread.join()
    _write(params, "ended", str(context.cancel_reason))
    context.check_cancelled()


@CONFORMANCE_PIPELINES.pipeline("conformance.sleep")
async def sleep(params: Params) -> None:
    """Sleep until it is cancelled, and write to `ended`."""
    await to_thread.run_sync(_note_begin, params)
    try:
        await anyio.sleep(_LONGEST)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_write, params, "ended", str(pipeline_context().cancel_reason))


@CONFORMANCE_PIPELINES.pipeline("conformance.ignore")
def ignore(params: Params) -> dict[str, Any]:
    """Run until the file `go_on` exists, whether it is cancelled or not."""
    _note_begin(params)
    _wait((Path(params["folder"]) / "go_on").exists)
    return {"attempt": pipeline_context().attempt}


@CONFORMANCE_PIPELINES.pipeline("conformance.report")
def report(params: Params) -> dict[str, Any]:
    """Report progress, wait for the file `go_on`, and report once more; all attempts but the second fail."""
    context = pipeline_context()
    last = context.last_progress
    for done in range(50):
        context.progress(done, 100, "loading")
    if context.attempt == 1:
        _wait((Path(params["folder"]) / "go_on").exists)
    context.progress(99, 100)
    if context.attempt == 1:
        raise ConnectionError("no route")
    return {"last": [last.done, last.total, last.message] if last is not None else None}


@CONFORMANCE_PIPELINES.pipeline("conformance.trace")
def trace(params: Params) -> dict[str, Any]:
    """Return the trace context."""
    span = get_current_span().get_span_context()
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}", "is_valid": span.is_valid}


@CONFORMANCE_PIPELINES.pipeline("conformance.trace_async")
async def trace_async(params: Params) -> dict[str, Any]:
    """Return the trace context, in an event loop."""
    return trace(params)


@CONFORMANCE_PIPELINES.pipeline("conformance.item")
def item(params: Params) -> dict[str, Any]:
    """Count the items that run at the same time, with files in the folder."""
    folder = Path(params["folder"])
    mark = folder / f"running-{params['item']}"
    mark.touch()
    try:
        running = len(list(folder.glob("running-*")))
        time.sleep(0.02)  # noqa: TID251 - a plain pipeline
    finally:
        mark.unlink()
    return {"square": params["item"] ** 2, "running": running}


def plain(params: Params) -> dict[str, Any]:
    """A pipeline that is not registered, but found by its module."""
    return {"plain": True}


def _note_begin(params: Params) -> None:
    """Write a file `begun-…` for each call, with the id of the process."""
    number = len(list(Path(params["folder"]).glob("begun-*"))) + 1
    _write(params, f"begun-{number}", str(os.getpid()))


def _write(params: Params, name: str, text: str) -> None:
    part = Path(params["folder"]) / f"part-{name}"
    part.write_text(text)
    part.rename(part.with_name(name))


def _wait(is_over: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + _LONGEST
    while not is_over() and time.monotonic() < give_up_at:
        time.sleep(_POLL)  # noqa: TID251 - a plain pipeline
