"""A failed step leaves its traceback: in the log, on its span, and as the cause of `RunFailedError`; never a value."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from spine_async import (
    RetryPolicy,
    RunFailedError,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.storage import MemoryRunStore, SqlRunStore

pytestmark = pytest.mark.anyio

Config = Mapping[str, Any]
SECRET = "swordfish"


class Model(BaseModel):
    number: int


class OwnError(Exception):
    def __init__(self, first: object, second: object) -> None:
        self.first = first
        super().__init__(f"{first} {second}")


def deep_in_the_handler(token: str) -> None:
    try:
        {}[token]
    except KeyError as exc:
        raise OwnError("bad token", token) from exc


async def breaks(context: WorkflowContext, config: Config) -> None:
    deep_in_the_handler(str(context.params["token"]))


def flow(**options: Any) -> Workflow:
    return Workflow("w", [Step.lambda_("breaks", breaks, **options)])


def errors(caplog: pytest.LogCaptureFixture, level: int = logging.ERROR) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.name == "spine_async" and each.levelno == level]


def text(record: logging.LogRecord) -> str:
    return logging.Formatter().format(record)


async def test_the_log_names_run_and_step_and_shows_where_it_failed(
    make_runner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await make_runner().execute(flow(), params={"token": SECRET}, run_id="r")
    (record,) = errors(caplog)
    assert "run r: step breaks failed after 1 attempt(s) (INTERNAL)" in text(record)
    assert "Traceback (most recent call last)" in text(record)
    assert "in deep_in_the_handler" in text(record)
    assert "OwnError" in text(record)
    assert "KeyError" in text(record)
    assert SECRET not in text(record)
    assert SECRET not in caplog.text


async def test_each_retried_attempt_is_a_warning_and_the_last_one_an_error(
    make_runner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    retry = RetryPolicy(max_attempts=3, initial_delay=0, retryable_errors=(OwnError,))
    await make_runner().execute(flow(retry=retry), params={"token": SECRET}, run_id="r")
    warned = errors(caplog, logging.WARNING)
    assert [f"attempt {number} of step breaks failed" in text(each) for number, each in enumerate(warned, 1)] == [
        True
    ] * 2
    assert all("in deep_in_the_handler" in text(each) for each in warned)
    assert len(errors(caplog)) == 1
    assert SECRET not in caplog.text


async def test_a_tolerated_failure_and_a_failed_item_are_logged_with_their_paths(
    make_runner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    steps = [
        Step.lambda_("tolerated", breaks, on_error="continue"),
        Step.map("each", items=[1, 2], iterator=breaks, tolerated_failures=2),
        Step.map("fails", items=[1], iterator=breaks),
    ]
    result = await make_runner().execute(Workflow("w", steps), params={"token": SECRET}, run_id="r")
    assert result.status == "failed"
    logged = [text(each) for each in errors(caplog)]
    assert len(logged) == 5
    paths = ["step tolerated ", "step each[0]/", "step each[1]/", "step fails[0]/", "step fails "]
    assert all(path in "".join(logged) for path in paths)
    (of_map,) = [each for each in logged if "step fails " in each]
    assert "Traceback" not in of_map  # it was logged with the item


async def test_a_returned_failure_is_logged_without_a_traceback(
    make_runner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def returns(context: WorkflowContext, config: Config) -> StepResult:
        return StepResult.fail(f"no {SECRET}", "DEPENDENCY")

    await make_runner().execute(Workflow("w", [Step.lambda_("returns", returns)]), run_id="r")
    (record,) = errors(caplog)
    assert "step returns failed after 1 attempt(s) (DEPENDENCY)" in text(record)
    assert SECRET not in text(record)


def as_text(token: str) -> None:
    Model.model_validate({"number": token})


def as_group(token: str) -> None:
    raise ExceptionGroup(token, [ValueError(token), ExceptionGroup(token, [KeyError(token)])])


def as_syntax_error(token: str) -> None:
    compile(f"{token} = = 1", token, "exec")


def as_os_error(token: str) -> None:
    raise FileNotFoundError(2, token, token)


def with_notes(token: str) -> None:
    error = ValueError(token)
    error.add_note(token)
    raise error


def as_circle(token: str) -> None:
    error, cause = ValueError(token), KeyError(token)
    cause.__context__ = error
    raise error from cause


def as_long_chain(token: str) -> None:
    error = ValueError(token)
    for _ in range(5000):
        outer = ValueError(token)
        outer.__cause__ = error
        error = outer
    raise error


@pytest.mark.parametrize(
    "function", [as_text, as_group, as_syntax_error, as_os_error, with_notes, as_circle, as_long_chain]
)
async def test_no_exception_brings_a_value_into_log_or_span(
    make_runner: Any, caplog: pytest.LogCaptureFixture, function: Any
) -> None:
    async def raises(context: WorkflowContext, config: Config) -> None:
        function(str(context.params["token"]))

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    runner = make_runner(tracer_provider=provider)
    result = await runner.execute(Workflow("w", [Step.lambda_("raises", raises)]), params={"token": SECRET}, run_id="r")
    assert result.status == "failed"
    assert len(errors(caplog)) == 1
    assert SECRET not in text(errors(caplog)[0])
    for span in exporter.get_finished_spans():
        assert SECRET not in str(dict(span.attributes or {}))
        assert all(SECRET not in str(dict(event.attributes or {})) for event in span.events)


async def test_the_span_has_an_exception_event_with_type_and_stacktrace(make_runner: Any) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    await make_runner(tracer_provider=provider).execute(flow(), params={"token": SECRET})
    (span,) = [each for each in exporter.get_finished_spans() if each.name == "step breaks"]
    (event,) = span.events
    attributes = dict(event.attributes or {})
    assert event.name == "exception"
    assert str(attributes["exception.type"]).endswith("test_tracebacks.OwnError")
    assert "in deep_in_the_handler" in str(attributes["exception.stacktrace"])
    assert "exception.message" not in attributes


async def test_it_is_the_cause_of_run_failed_error(make_runner: Any) -> None:
    result = await make_runner().execute(flow(), params={"token": SECRET})
    with pytest.raises(RunFailedError) as caught:
        result.raise_for_status()
    assert isinstance(caught.value.__cause__, OwnError)


async def test_the_exception_of_the_first_failed_item_is_the_cause(make_runner: Any) -> None:
    result = await make_runner().execute(
        Workflow("w", [Step.map("each", items=[1, 2], iterator=Workflow(steps=flow().steps))]), params={"token": SECRET}
    )
    assert isinstance(result.exception, OwnError)


async def test_a_timeout_and_a_returned_failure(make_runner: Any) -> None:
    async def hangs(context: WorkflowContext, config: Config) -> None:
        await asyncio.Event().wait()

    result = await make_runner().execute(Workflow("w", [Step.lambda_("hangs", hangs, timeout=0.01)]))
    assert isinstance(result.exception, TimeoutError)
    assert result.error == "step 'hangs' timed out after 0.01 s"


async def test_neither_a_completed_nor_a_stored_result_has_one(make_runner: Any) -> None:
    store = MemoryRunStore()
    failed = await WorkflowRunner(store=store).execute(flow(), params={"token": SECRET}, run_id="r")
    again = await WorkflowRunner(store=store).execute(flow(), params={"token": SECRET}, run_id="r")
    tolerated = await WorkflowRunner(store=store).execute(flow(on_error="continue"), params={"token": SECRET})
    assert failed.exception is not None
    assert (again.status, again.exception, tolerated.exception) == ("failed", None, None)


async def test_it_is_not_pickled(make_runner: Any) -> None:
    result = await make_runner().execute(flow(), params={"token": SECRET}, run_id="r")
    state = result.__getstate__()
    assert result.exception not in state
    assert len(pickle.dumps([each for each in state if not isinstance(each, WorkflowContext)])) > 0


async def test_a_run_that_fails_in_the_background_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    store, begun = MemoryRunStore(), asyncio.Event()

    async def hangs(context: WorkflowContext, config: Config) -> None:
        begun.set()
        await asyncio.Event().wait()

    hanging = Workflow("w", [Step.lambda_("breaks", hangs)])
    task = asyncio.create_task(WorkflowRunner(store=store).execute(hanging, params={"token": SECRET}, run_id="r"))
    await begun.wait()
    store._runs["r"].lease_end = 0.0  # as if its owner's machine had gone
    (result,) = await WorkflowRunner(store=store, workflows=[flow()]).recover()
    assert result.status == "failed"
    assert "run r failed at step breaks (INTERNAL)" in text(errors(caplog)[-1])
    task.cancel()
    await asyncio.wait([task])


class TestTheStoreInUse:
    async def test_it_is_logged_once_for_each_runner(self, caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
        caplog.set_level(logging.INFO, "spine_async")
        config = WorkflowRunnerConfig(database_url=f"sqlite:///{tmp_path}/runs.db")
        runner = WorkflowRunner(config=config)
        assert errors(caplog, logging.INFO) == []
        async with runner:
            await runner.list_runs()
        await runner.list_runs()
        (record,) = errors(caplog, logging.INFO)
        assert record.getMessage() == f"runs are stored in SQLite database {tmp_path}/runs.db"

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("postgresql://me:pa55@host:5433/db", "PostgreSQL database db at host:5433"),
            ("postgresql://host/db?user=me&password=pa55", "PostgreSQL database db at host"),
            ("sqlite://", "SQLite database :memory:"),
        ],
    )
    def test_it_is_named_without_its_password(self, url: str, shown: str) -> None:
        assert SqlRunStore.from_url(url).location == shown

    async def test_memory_and_dry_runs(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "spine_async")
        await WorkflowRunner(store=MemoryRunStore()).list_runs()
        await WorkflowRunner(dry_run=True).execute(flow(), params={"token": SECRET})
        assert [each.getMessage() for each in errors(caplog, logging.INFO)] == [
            "runs are stored in the memory of this process",
            "runs are stored in nothing: this runner writes no checkpoints",
        ]
