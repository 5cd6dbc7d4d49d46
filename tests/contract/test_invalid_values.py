"""Values of user code that cannot be stored: a clear failure that names step and value."""

import dataclasses
import enum
import functools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from unittest.mock import MagicMock

import pytest

from spine_async import (
    DefinitionError,
    InvalidPolicyError,
    LocalDispatcher,
    QualityMetrics,
    QualityThresholds,
    RetryPolicy,
    Step,
    StepError,
    StepEvent,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
    WorkflowRunnerConfig,
    wait_first,
)


class _E(enum.Enum):
    A = "a"


class _Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError


async def _run(runner: WorkflowRunner, make: Callable[[], Any], **options: Any) -> WorkflowResult:
    async def handler(context: WorkflowContext, config: dict[str, Any]) -> Any:
        return make()

    workflow = Workflow("w", [Step.lambda_("a", handler, **options), Step.lambda_("b", lambda _c, _d: None)])
    result = await runner.execute(workflow, run_id="r")
    replayed = await WorkflowRunner(store=runner._runtime.store).execute(workflow, run_id="r")
    assert (replayed.status, replayed.error, replayed.error_category) == (
        result.status,
        result.error,
        result.error_category,
    )
    assert replayed.context.to_dict()["outputs"] == result.context.to_dict()["outputs"]
    return result


OK = StepResult.ok({"n": 1})
FAILED = StepResult.fail("it broke", "TRANSIENT")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: StepResult.ok(quality={"rows": 10}), ["quality", "'rows'"]),
        (lambda: StepResult.ok(quality=7), ["quality", "int"]),
        (lambda: dataclasses.replace(OK, quality={"record_count": "many"}), ["quality", "record_count", "str"]),
        (lambda: dataclasses.replace(OK, skip_reason=object()), ["skip_reason", "object"]),
        (lambda: StepResult.skip(object()), ["skip_reason", "object"]),
        (lambda: StepResult.stop(7), ["stop_reason", "int"]),
        (lambda: dataclasses.replace(OK, context_updates=[("a", 1)]), ["context_updates", "list"]),
        (lambda: StepResult.ok(events=7), ["events[0]", "int"]),
        (lambda: StepResult.ok(events=["a", None]), ["events[1]", "NoneType"]),
        (lambda: dataclasses.replace(OK, events=[object()]), ["events[0]", "object"]),
        (lambda: StepResult.ok(events=[StepEvent("a", [1])]), ["events[0].metadata", "list"]),
        (lambda: StepResult.ok(events=[StepEvent(object())]), ["events"]),
        (lambda: StepResult.ok(events=b"done"), ["events[0]", "bytes"]),
        (lambda: StepResult("yes"), ["success", "str"]),
        (lambda: StepResult(None), ["success", "NoneType"]),
        (lambda: StepResult(False, error=object()), ["error", "object"]),
        (lambda: StepResult(False, error="x", exception="y"), ["exception", "str"]),
        (lambda: StepResult.fail("x", category=object()), ["x; ", "category", "object"]),
        (lambda: StepResult.fail("x", category=""), ["category", "str"]),
        (lambda: StepResult.fail("x", category="a\0b"), ["category", "str"]),
        (lambda: StepResult.fail("it broke", retry_after="30"), ["it broke", "retry_after", "'30'"]),
        (lambda: StepResult.fail("it broke", retry_after=10**400), ["it broke", "retry_after"]),
        (lambda: StepResult.fail("it broke", retry_after=float("nan")), ["retry_after"]),
        (lambda: StepResult.fail("it broke", retry_after=-1), ["retry_after"]),
        (lambda: StepResult.fail("it broke", retry_after=True), ["retry_after"]),
        (lambda: StepResult.fail("it broke", retry_after=1e300), ["retry_after"]),
        (lambda: {_E.A: 1, "a": 2}, [".a", "two keys"]),
        (lambda: {"deep": [{_E.A: 1, "a": 2}]}, [".deep[0].a", "two keys"]),
        (lambda: StepResult.ok(context_updates={_E.A: 1, "a": 2}), ["context_updates.a", "two keys"]),
        (lambda: StepResult.ok(quality=QualityMetrics(custom_metrics={_E.A: 1, "a": 2})), ["two keys"]),
        (lambda: StepResult.ok(events=[StepEvent("e", {_E.A: 1, "a": 2})]), ["two keys"]),
        (lambda: {"\ud800": 1}, ["surrogate"]),
    ],
)
async def test_a_result_with_a_field_that_cannot_be_stored_fails_its_step(
    runner: WorkflowRunner, make: Callable[[], Any], named: list[str]
) -> None:
    result = await _run(runner, make)
    assert (result.status, result.error_step, result.error_category) == ("failed", "a", "INTERNAL")
    assert "'a'" in str(result.error)
    for part in named:
        assert part in str(result.error)


@pytest.mark.parametrize(
    ("make", "events"),
    [
        (lambda: StepResult.ok(events="done"), [("done", {})]),
        (lambda: StepResult.ok(events={"event_type": "done", "n": 1}), [("done", {"n": 1})]),
        (lambda: StepResult.ok(events=StepEvent("done")), [("done", {})]),
        (lambda: dataclasses.replace(OK, events="done"), [("done", {})]),
        (lambda: dataclasses.replace(OK, events=["x", StepEvent("y")]), [("x", {}), ("y", {})]),
    ],
)
async def test_one_event_is_one_event(
    runner: WorkflowRunner, make: Callable[[], Any], events: list[tuple[str, dict[str, Any]]]
) -> None:
    await _run(runner, make)
    stored = [(each.event_type, dict(each.metadata)) async for each in runner.events("r")]
    assert [each for each in stored if each[0] in {"done", "d", "x", "y"}] == events


async def test_quality_as_a_mapping_of_its_fields_is_accepted(runner: WorkflowRunner) -> None:
    result = await _run(runner, lambda: StepResult.ok(quality={"record_count": 10, "valid_count": 9}))
    assert result.context.get_quality("a") == QualityMetrics(record_count=10, valid_count=9)


@pytest.mark.parametrize(
    ("make", "error", "category"),
    [
        (lambda: dataclasses.replace(FAILED, error=ValueError("x")), "ValueError: x", "TRANSIENT"),
        (lambda: StepResult(False, error=ConnectionError("x")), "ConnectionError: x", "TRANSIENT"),
        (lambda: StepResult(False), "step 'a' failed without an error text", "INTERNAL"),
        (lambda: StepResult(False, error=_Text("x")), "x", "INTERNAL"),
        (lambda: StepResult.fail("a\0b\ud800"), "a\\x00b\\ud800", "INTERNAL"),
        (lambda: dataclasses.replace(FAILED, error="a\0"), "a\\x00", "TRANSIENT"),
        (lambda: StepResult.fail("x", category="transient"), "x", "TRANSIENT"),
        (lambda: StepResult.fail("x", category="MINE"), "x", "MINE"),
        (lambda: dataclasses.replace(OK, success=False), "step 'a' failed without an error text", "INTERNAL"),
        (lambda: StepResult.fail("x", retry_after=timedelta(seconds=3)), "x", "INTERNAL"),
        (lambda: StepResult(False, error="x", stop_reason="no"), "x", "INTERNAL"),
    ],
)
async def test_failures_built_in_unusual_ways(
    runner: WorkflowRunner, make: Callable[[], Any], error: str, category: str
) -> None:
    result = await _run(runner, make)
    assert (result.status, result.error, result.error_category) == ("failed", error, category)


async def test_a_success_made_of_a_failure_keeps_nothing_of_it(runner: WorkflowRunner) -> None:
    result = await _run(runner, lambda: dataclasses.replace(FAILED, success=True, output={"n": 2}))
    assert result.status == "completed"
    checkpoint = await runner.get_checkpoint("r", "a")
    assert checkpoint is not None
    assert result.failed_steps == []


@pytest.mark.parametrize("value", ["30", [], float("inf"), -1.0, object()])
async def test_a_foreign_exception_may_have_any_attribute_retry_after(runner: WorkflowRunner, value: object) -> None:
    error = ConnectionError("x")
    error.retry_after = value  # type: ignore[attr-defined]

    def fail() -> None:
        raise error

    result = await _run(runner, fail, retry=RetryPolicy(2, initial_delay=0.0))
    assert (result.error, result.step_metrics[0].attempts) == ("ConnectionError: x", 2)


@pytest.mark.parametrize("value", ["30", -1, 10**400, object()])
async def test_an_invalid_retry_after_of_a_step_error_is_named(runner: WorkflowRunner, value: Any) -> None:
    def fail() -> None:
        raise StepError("x", "TRANSIENT", retry_after=value)

    result = await _run(runner, fail, retry=RetryPolicy(2, initial_delay=0.0))
    assert "StepError: x; step 'a'" in str(result.error)
    assert "retry_after" in str(result.error)


async def _async_predicate(error: BaseException) -> bool:
    return True


@pytest.mark.parametrize(
    "rules",
    [
        "transient",
        ("transient",),
        ("TRANSIENT", "MINE"),
        _async_predicate,
        (functools.partial(_async_predicate),),
        lambda: True,
        5,
        None,
        [5],
        int,
        [ValueError, int],
    ],
)
def test_a_retry_rule_that_can_never_work_is_refused(rules: Any) -> None:
    with pytest.raises(InvalidPolicyError, match=r"retryable_errors"):
        RetryPolicy(retryable_errors=rules)


def _raise(error: BaseException) -> bool:
    raise KeyError("k")


@pytest.mark.parametrize(
    ("predicate", "note"),
    [
        (_raise, "the retry predicate _raise raised KeyError: 'k'"),
        (
            lambda error: _async_predicate(error),  # noqa: PLW0108 - a plain function that returns a coroutine
            "returned a value of type coroutine; it must return True or False",
        ),
        (lambda error: None, "returned a value of type NoneType"),
        (lambda error: "yes", "returned a value of type str"),
    ],
)
async def test_a_predicate_that_gives_no_answer_does_not_hide_the_error(
    runner: WorkflowRunner, predicate: Any, note: str
) -> None:
    result = await _run(runner, lambda: FAILED, retry=RetryPolicy(3, retryable_errors=predicate))
    assert str(result.error).startswith("it broke; the retry predicate")
    assert note in str(result.error)
    assert (result.error_category, result.step_metrics[0].attempts) == ("TRANSIENT", 1)


async def test_a_category_of_ones_own_is_retried_by_a_predicate(runner: WorkflowRunner) -> None:
    policy = RetryPolicy(2, initial_delay=0.0, retryable_errors=lambda error: getattr(error, "category", "") == "MINE")
    result = await _run(runner, lambda: StepResult.fail("x", "MINE"), retry=policy)
    assert result.step_metrics[0].attempts == 2


async def _nothing(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    await next_fn(step, context)


async def _mapping(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    return {"status": await next_fn(step, context)}


def _plain(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    return OK


@pytest.mark.parametrize("middleware", [_nothing, _mapping, _plain])
@pytest.mark.parametrize("inner", [OK, FAILED])
async def test_middleware_that_returns_no_result_fails_the_step(
    runner: WorkflowRunner, middleware: Any, inner: StepResult
) -> None:
    runner.middleware(middleware)

    async def handler(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return inner

    result = await runner.execute(Workflow("w", [Step.lambda_("a", handler)]))
    assert (result.status, result.error_category) == ("failed", "CONFIGURATION")
    assert middleware.__name__ in str(result.error)
    assert "'a'" in str(result.error)


async def test_middleware_with_a_wrong_signature_is_refused(runner: WorkflowRunner) -> None:
    async def two(step: Step, context: WorkflowContext) -> StepResult:
        return OK

    with pytest.raises(DefinitionError, match="two"):
        runner.middleware(two)  # type: ignore[type-var]


async def test_a_step_that_was_jumped_over_and_fails_later_is_in_one_list(runner: WorkflowRunner) -> None:
    def fail(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return FAILED

    steps = [
        Step.choice("go", lambda context: not context.has_output("late"), "late", "early"),
        Step.lambda_("early", fail),
        Step.lambda_("late", lambda _c, _d: {"n": 1}, next_step="go"),
    ]
    result = await runner.execute(Workflow("w", steps), run_id="r")
    assert (result.failed_steps, result.skipped_steps) == (["early"], [])
    again = await runner.execute(Workflow("w", steps), run_id="r")
    assert (again.failed_steps, again.skipped_steps) == (["early"], [])


@pytest.mark.parametrize("seconds", [1e15, 1e300, 10**400, float("nan"), timedelta.max, "5", True])
def test_a_wait_that_cannot_end_is_refused(seconds: Any) -> None:
    with pytest.raises(DefinitionError, match=r"(?s)w.*seconds"):
        Step.wait("w", seconds)


async def _junk() -> object:
    return 7


@pytest.mark.parametrize(
    ("until", "named"),
    [
        (lambda context: None, "NoneType"),
        (lambda context: 7, "int"),
        (lambda context: "tomorrow", "tomorrow"),
        (lambda context: datetime(2026, 1, 1), "time zone"),  # noqa: DTZ001 - the fault to find
        (lambda context: datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), "UTC"),
        (lambda context: _junk(), "int"),
    ],
)
async def test_a_wait_function_that_returns_no_moment_fails_its_step(
    runner: WorkflowRunner, until: Any, named: str
) -> None:
    result = await runner.execute(Workflow("w", [Step.wait("hold", until=until)]))
    assert (result.status, result.error_category) == ("failed", "CONFIGURATION")
    assert "'hold'" in str(result.error)
    assert named in str(result.error)


async def test_a_wait_function_may_be_async(runner: WorkflowRunner) -> None:
    async def until(context: WorkflowContext) -> datetime:
        return datetime(2020, 1, 1, tzinfo=UTC)

    assert (await runner.execute(Workflow("w", [Step.wait("hold", until=until)]))).status == "completed"


def test_quality_thresholds_of_a_map_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"each.*quality"):
        Step.map(
            "each",
            items=[1],
            iterator=lambda _c, _d: None,
            quality_thresholds=QualityThresholds(min_valid_rate=0.5),
        )


class _Handler:
    async def method(self, context: WorkflowContext) -> None: ...

    def __call__(self, context: WorkflowContext) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [
        lambda: None,
        lambda context: None,
        lambda context, config, more: None,
        lambda *, context, config: None,
        lambda context, *, config: None,
        lambda context, config, *, must: None,
        functools.partial(lambda context, config: None, 1),
        functools.partial(lambda context, config: None, config=1),
        _Handler(),
        _Handler().method,
        _Handler,
        7,
        None,
    ],
)
def test_a_handler_that_cannot_be_called_is_refused(handler: Any) -> None:
    with pytest.raises(DefinitionError, match=r"'a'.*handler"):
        Step.lambda_("a", handler)
    with pytest.raises(DefinitionError, match="each"):
        Workflow("w", [Step.map("each", items=[1], iterator=handler)])


@pytest.mark.parametrize(
    "handler",
    [
        lambda *args: None,
        lambda context, *rest: None,
        lambda context, config, more=1, *, option=2: None,
        lambda *args, **kwargs: None,
        functools.partial(lambda first, context, config: None, 1),
        print,
        dict.get,
    ],
)
def test_a_handler_that_can_be_called_is_accepted(handler: Any) -> None:
    assert Step.lambda_("a", handler).name == "a"


@pytest.mark.parametrize(
    "build",
    [
        lambda: Step.choice("a", lambda: True, "b"),
        lambda: Step.map("a", items=lambda: [1], iterator=lambda _c, _d: None),
        lambda: Step.wait("a", until=lambda: datetime.now(UTC)),
        lambda: LocalDispatcher().register("a", lambda: None),
    ],
)
def test_other_functions_are_checked_as_handlers_are(build: Callable[[], object]) -> None:
    with pytest.raises(DefinitionError, match=r"'a'.*positional argument"):
        build()


_STEP = Step.lambda_("a", lambda _c, _d: None)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Workflow("w", _STEP),  # type: ignore[arg-type]
        lambda: Workflow("w", "steps"),  # type: ignore[arg-type]
        lambda: Workflow("w", None),  # type: ignore[arg-type]
        lambda: Workflow("w", 5),  # type: ignore[arg-type]
        lambda: Workflow("w", {"a": _STEP}),  # type: ignore[arg-type]
        lambda: Workflow([_STEP]),  # type: ignore[arg-type]
        lambda: Workflow("w", [_STEP], defaults=[1]),  # type: ignore[arg-type]
        lambda: Workflow("w", [_STEP], defaults={_E.A: 1, "a": 2}),  # type: ignore[dict-item]
        lambda: Workflow("w", [_STEP], tags=5),  # type: ignore[arg-type]
        lambda: Workflow("w", [_STEP], domain=5),  # type: ignore[arg-type]
        lambda: Step.lambda_("a", lambda _c, _d: None, 5),  # type: ignore[arg-type]
        lambda: Step.pipeline("a", "p", [1]),  # type: ignore[arg-type]
        lambda: Step.pipeline("a", "p\ud800"),
        lambda: QualityThresholds(min_valid_rate="0.9"),  # type: ignore[arg-type]
        lambda: QualityMetrics(record_count=-1),
        lambda: QualityMetrics(passed="yes"),  # type: ignore[arg-type]
        lambda: WorkflowRunner(config={}),  # type: ignore[arg-type]
        lambda: WorkflowRunner(config={"dry_run": True}),  # type: ignore[arg-type]
        lambda: WorkflowRunner(config=WorkflowRunnerConfig),  # type: ignore[arg-type]
        lambda: WorkflowRunner("sqlite:///runs.db"),  # type: ignore[arg-type]
        lambda: WorkflowRunner(dispatcher=LocalDispatcher),  # type: ignore[arg-type]
        lambda: WorkflowRunner(store="memory"),  # type: ignore[arg-type]
        lambda: WorkflowRunner(workflows=Workflow("w", [_STEP])),  # type: ignore[arg-type]
        lambda: WorkflowRunner(workflows=[_STEP]),  # type: ignore[list-item]
        lambda: WorkflowRunner(clock=5),  # type: ignore[arg-type]
        lambda: WorkflowRunner(dry_run="no"),  # type: ignore[arg-type]
        lambda: WorkflowRunner(work=1),  # type: ignore[arg-type]
        lambda: WorkflowRunner(tracer_provider=object()),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_a_wrong_type_are_definition_errors(build: Callable[[], object]) -> None:
    with pytest.raises(DefinitionError):
        build()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda runner: runner.execute("w"), "workflow"),
        (lambda runner: runner.execute(Workflow), "workflow"),
        (lambda runner: runner.execute(_FLOW, params=[1]), "params"),
        (lambda runner: runner.execute(_FLOW, partition="day"), "partition"),
        (lambda runner: runner.execute(_FLOW, context={"params": {}}), "context"),
        (lambda runner: runner.execute(_FLOW, start_from=["a"]), "start_from"),
        (lambda runner: runner.execute(_FLOW, run_id=5), "run id"),
        (lambda runner: runner.execute(_FLOW, params={_E.A: 1, "a": 2}), "two keys"),
        (lambda runner: runner.resume(5), "run id"),
        (lambda runner: runner.resume("r", workflow="w"), "workflow"),
        (lambda runner: runner.resume("r", workflow=_FLOW, params_override=[]), "params_override"),
        (lambda runner: runner.stop("r", 5), "reason"),
        (lambda runner: runner.stop(None), "run id"),
        (lambda runner: runner.get_run(5), "run id"),
        (lambda runner: runner.list_runs(limit="5"), "limit"),
        (lambda runner: runner.list_runs(workflow_name=5), "workflow_name"),
        (lambda runner: runner.list_runs(key=5), "key"),
        (lambda runner: runner.list_checkpoints("r", after="5"), "after"),
        (lambda runner: runner.list_checkpoints("r", limit=None), "limit"),
        (lambda runner: anext(runner.events("r", "5")), "after"),
        (lambda runner: runner.delete_run(5), "run id"),
        (lambda runner: runner.map_items("r", 5), "path"),
        (lambda runner: runner.map_items("r", None), "path"),
        (lambda runner: runner.map_items("r", "a\0b"), "path"),
        (lambda runner: runner.map_items("r", "a\ud800b"), "path"),
        (lambda runner: runner.list_visits("r", inside=5), "inside"),
        (lambda runner: runner.list_visits("r", inside="a\ud800b"), "inside"),
        (lambda runner: runner.result("r", float("nan")), "timeout"),
        (lambda runner: runner.result("r", "5"), "timeout"),
        (lambda runner: runner.handle("r").result(timeout=-1), "timeout"),
        (lambda runner: runner.handle("r").result(timeout=10**400), "timeout"),
        (lambda runner: wait_first(runner.handle("r"), timeout="5"), "timeout"),
        (lambda runner: wait_first(runner.handle("r"), timeout=float("nan")), "timeout"),
        (lambda runner: wait_first(runner.handle("r"), timeout=timedelta(-1)), "timeout"),
    ],
)
async def test_arguments_of_methods_are_checked(
    runner: WorkflowRunner, call: Callable[[WorkflowRunner], Awaitable[object]], named: str
) -> None:
    await runner.execute(
        Workflow("w", [Step.lambda_("a", lambda _c, _d: StepResult.stop("enough")), *_FLOW.steps[1:]]), run_id="r"
    )
    with pytest.raises(ValueError, match=named) as caught:
        await call(runner)
    assert type(caught.value).__module__ == "spine_async.errors"


_FLOW = Workflow("w", [_STEP, Step.lambda_("b", lambda _c, _d: None)])


@pytest.mark.parametrize("order", ["", "NEWEST", None, ["newest"], {"newest": 1}])
async def test_an_unknown_order_of_runs_is_refused(runner: WorkflowRunner, order: Any) -> None:
    with pytest.raises(ValueError, match=r"order is .* must be 'newest' or 'oldest'"):
        await runner.list_runs(order=order)


async def test_durations_of_waits(runner: WorkflowRunner) -> None:
    result = await runner.execute(_FLOW, run_id="r")
    for timeout in (None, 0, timedelta(seconds=1), float("inf"), 10**9):
        assert (await runner.handle("r").result(timeout)).status == result.status
        if timeout != 0:
            assert (await wait_first(runner.handle("r"), timeout=timeout)).run_id == "r"


@pytest.mark.parametrize("field", ["error", "exception"])
async def test_the_mock_of_an_exception_is_no_exception(runner: WorkflowRunner, field: str) -> None:
    failure = dataclasses.replace(StepResult.fail("x"), **{field: MagicMock(spec=ValueError)})
    result = await _run(runner, lambda: failure)
    assert result.status == "failed"
    assert f"step 'a' returned a StepResult with an invalid field: {field} is of type MagicMock" in str(result.error)


_ITSELF: dict[str, Any] = {}
_ITSELF["itself"] = _ITSELF


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda context: context.with_params(5), "the updates of params are of type int; they must be a mapping"),
        (lambda context: context.with_metadata("x"), "the updates of metadata are of type str; they must be a mapping"),
        (lambda context: context.with_output(5, {}), "step is of type int; it must be the name of a step"),
        (lambda context: context.with_quality("a", {}), "quality is of type dict; it must be a QualityMetrics"),
        (lambda context: context.with_quality(None, QualityMetrics()), "step is of type NoneType"),
        (lambda context: context.with_metadata(_ITSELF), "contains itself"),
        (lambda context: WorkflowContext.from_dict(5), "expected a mapping, found int"),
        (lambda context: Step.pipeline("p", "p", _ITSELF), "contains itself"),
        (lambda context: QualityMetrics(custom_metrics=_ITSELF), "contains itself"),
    ],
)
def test_a_value_that_no_context_can_hold_is_refused(change: Callable[[Any], object], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        change(WorkflowContext())
