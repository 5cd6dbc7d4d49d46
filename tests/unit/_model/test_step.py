from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from spine_async._model.lambda_step import LambdaStep
from spine_async._model.policy import RetryPolicy
from spine_async._model.signal_step import SignalStep
from spine_async._model.status import ErrorPolicy, StepType
from spine_async._model.step import Step
from spine_async._model.time_option import as_moment
from spine_async._model.workflow import Workflow
from spine_async.errors import DefinitionError


class Output(BaseModel):
    rows: int


def work(context: object, config: dict[str, object]) -> None: ...


async def work_async(context: object, config: dict[str, object]) -> None: ...


class Worker:
    async def __call__(self, context: object, config: dict[str, object]) -> None: ...


def test_each_kind_has_its_type() -> None:
    steps = (
        Step.lambda_("a", work),
        Step.pipeline("b", "ingest"),
        Step.choice("c", lambda context: True, "a"),
        Step.map("d", items=[1], iterator=work),
        Step.wait("e", 1),
        Step.wait_for_signal("f"),
        Step.transaction("t", lambda context, config, connection: None),
        Step.parallel("g", {"left": work}),
        Step.workflow("h", Workflow(steps=[Step.lambda_("a", work)])),
    )
    assert [step.step_type for step in steps] == list(StepType)


def test_the_defaults_are_those_of_the_contract() -> None:
    step = Step.lambda_("a", work)
    assert (step.on_error, step.retry, step.timeout, step.checkpoint) == (ErrorPolicy.STOP, None, None, None)
    each = Step.map("m", items=[1], iterator=work)
    chosen = (each.item_param, each.max_concurrency, each.tolerated_failures, each.collect)
    assert chosen == ("item", 10, 0, True)


@pytest.mark.parametrize(
    ("handler", "is_async"),
    [
        (work, False),
        (work_async, True),
        (partial(work_async), True),
        (Worker(), True),
        (Worker().__call__, True),
        (lambda context, config: None, False),
    ],
)
def test_the_colour_of_a_handler_is_settled_when_the_step_is_built(handler: Any, is_async: bool) -> None:
    assert Step.lambda_("a", handler).is_async is is_async


def test_a_step_is_frozen() -> None:
    step = Step.lambda_("a", work, {"limit": 5})
    with pytest.raises((FrozenInstanceError, TypeError, AttributeError)):
        step.name = "b"  # type: ignore[misc]
    with pytest.raises(TypeError):
        step.config["limit"] = 6  # type: ignore[index]


def test_a_step_keeps_a_copy_of_its_config() -> None:
    config = {"limit": 5}
    step = Step.lambda_("a", work, config)
    config["limit"] = 6
    assert step.config == {"limit": 5}


def test_words_and_timedeltas_are_taken() -> None:
    step = Step.lambda_("a", work, on_error="continue", timeout=timedelta(minutes=1))
    assert (step.on_error, step.timeout) == (ErrorPolicy.CONTINUE, 60.0)


def test_targets_are_where_a_step_may_go() -> None:
    assert Step.lambda_("a", work).targets == ()
    assert Step.lambda_("a", work, next_step="b").targets == ("b",)
    assert Step.choice("c", lambda context: True, "a").targets == ("a",)
    assert Step.choice("c", lambda context: True, "a", "b").targets == ("a", "b")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Step.lambda_("", work), "a name must not be empty"),
        (lambda: Step.lambda_("a/b", work), "step 'a/b': the name 'a/b' contains one of the characters"),
        (lambda: Step.lambda_(None, work), "a name must be a string, not NoneType"),  # type: ignore[arg-type]
        (lambda: Step.lambda_("a", 7), "step 'a': handler is 7; it must be callable"),  # type: ignore[arg-type]
        (lambda: Step.lambda_("a", work, timeout=0), "step 'a': timeout is 0; it must be a number of seconds above 0"),
        (lambda: Step.lambda_("a", work, timeout=-1), "step 'a': timeout: -1 is not a number of seconds of at least 0"),
        (lambda: Step.lambda_("a", work, timeout=float("nan")), "step 'a': timeout: nan is not a number of seconds"),
        (lambda: Step.lambda_("a", work, on_error="explode"), "step 'a': 'explode' is not a valid ErrorPolicy"),  # type: ignore[arg-type]
        (lambda: Step.lambda_("a", work, retry=3), "step 'a': retry is 3; it must be a RetryPolicy"),  # type: ignore[arg-type]
        (
            lambda: Step.lambda_("a", work, checkpoint="yes"),  # type: ignore[arg-type]
            "step 'a': checkpoint is 'yes'; it must be True, False or None",
        ),
        (
            lambda: Step.lambda_("a", work, output_model=dict),  # type: ignore[arg-type]
            "step 'a': output_model is <class 'dict'>; it must be a pydantic model class",
        ),
        (
            lambda: Step.lambda_("a", work, output_model=Output(rows=1)),  # type: ignore[arg-type]
            "it must be a pydantic model class",
        ),
        (
            lambda: Step.lambda_("a", work, quality_thresholds={"min_valid_rate": 1}),  # type: ignore[arg-type]
            "it must be QualityThresholds",
        ),
        (
            lambda: Step.lambda_("a", work, next_step=7),  # type: ignore[arg-type]
            "step 'a': next_step is 7; it must be the name of a step",
        ),
        (lambda: Step.pipeline("a", ""), "step 'a': pipeline is ''; it must be the name of a pipeline"),
        (lambda: Step.choice("a", True, "b"), "step 'a': condition is True; it must be callable"),  # type: ignore[arg-type]
        (
            lambda: Step.choice("a", lambda context: True, None),  # type: ignore[arg-type]
            "step 'a': then_step is None; it must be the name of a step",
        ),
        (
            lambda: Step.choice("a", lambda context: True, "b", 7),  # type: ignore[arg-type]
            "step 'a': else_step is 7; it must be the name of a step",
        ),
        (
            lambda: Step.map("a", items=[1], iterator=work, max_concurrency=0),
            "step 'a': max_concurrency is 0; it must be an integer of at least 1",
        ),
        (
            lambda: Step.map("a", items=[1], iterator=work, max_concurrency=1.5),  # type: ignore[arg-type]
            "step 'a': max_concurrency is 1.5",
        ),
        (
            lambda: Step.map("a", items=[1], iterator=work, tolerated_failures=-1),
            "step 'a': tolerated_failures is -1; it must be a count of at least 0 or a share up to 1.0",
        ),
        (
            lambda: Step.map("a", items=[1], iterator=work, tolerated_failures=1.5),
            "step 'a': tolerated_failures is 1.5; a float is a share",
        ),
        (
            lambda: Step.map("a", items=[1], iterator=work, item_param=""),
            "step 'a': item_param is ''; it must be the name of a param",
        ),
        (lambda: Step.map("a", iterator=work), "step 'a': a map takes exactly one of items and items_path"),
        (lambda: Step.wait("a"), "step 'a': a wait takes exactly one of seconds and until"),
        (
            lambda: Step.wait("a", 1, until=datetime(2026, 1, 1, tzinfo=UTC)),
            "step 'a': a wait takes exactly one of seconds and until",
        ),
        (lambda: Step.wait("a", -1), "step 'a': seconds: -1 is not a number of seconds of at least 0"),
        (
            lambda: Step.wait("a", until=datetime(2026, 1, 1)),  # noqa: DTZ001
            "step 'a': until has no time zone; pass an aware datetime",
        ),
        (lambda: Step.wait("a", until="tomorrow"), "step 'a': until is 'tomorrow'; text must be ISO 8601"),
        (lambda: Step.wait("a", until=7), "step 'a': until is of type int; it must be a datetime"),  # type: ignore[arg-type]
        (lambda: Step.wait_for_signal("a#b"), "step 'a#b': the name 'a#b' contains one of the characters"),
        (lambda: Step.wait_for_signal("a", signal="m[1]/b"), "step 'a': signal: the name 'm[1]/b' contains one of the"),
        (lambda: Step.wait_for_signal("a", signal=""), "step 'a': signal: a name must not be empty"),
        (lambda: Step.wait_for_signal("a", signal=7), "step 'a': signal: a name must be a string"),  # type: ignore[arg-type]
        (
            lambda: Step.wait_for_signal("a", model=dict),  # type: ignore[arg-type]
            "step 'a': model is <class 'dict'>; it must be a pydantic model class",
        ),
        (
            lambda: Step.wait_for_signal("a", timeout=0),
            "step 'a': timeout is 0; it must be a number of seconds above 0",
        ),
        (lambda: Step.wait_for_signal("a", timeout=-1), "step 'a': timeout: -1 is not a number of seconds"),
        (
            lambda: Step.wait_for_signal("a", timeout=1, on_timeout=None),  # type: ignore[arg-type]
            "step 'a': on_timeout is None; it must be 'fail', 'continue' or the name of a step",
        ),
        (
            lambda: Step.wait_for_signal("a", on_timeout="continue"),
            "step 'a': on_timeout is 'continue', but there is no timeout",
        ),
        (
            lambda: Step.wait_for_signal("a", on_error="retry"),  # type: ignore[arg-type]
            "step 'a': on_error is 'retry'; a wait for a signal is not repeated",
        ),
        (
            lambda: SignalStep(name="a", signal="a", retry=RetryPolicy()),
            "step 'a': retry does not apply to a wait for a signal",
        ),
    ],
)
def test_a_step_that_is_wrong_is_refused_with_its_name(build: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        build()
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_map_takes_its_iterator_when_it_is_in_a_workflow() -> None:
    each = Step.map("m", items_path="load.symbols", iterator=work, retry=RetryPolicy(max_attempts=2))
    assert each.iterator is work


def test_a_wait_takes_text_moments_and_functions() -> None:
    assert Step.wait("a", timedelta(hours=1)).seconds == 3600.0
    assert Step.wait("a", 0).seconds == 0.0
    assert Step.wait("a", until="2026-01-02T03:00:00+01:00").until == datetime(2026, 1, 2, 2, tzinfo=UTC)
    assert callable(Step.wait("a", until=lambda context: datetime.now(UTC)).until)


def test_a_wait_for_a_signal_has_defaults() -> None:
    step = Step.wait_for_signal("a")
    assert (step.signal, step.timeout, step.on_timeout, step.targets) == ("a", None, "fail", ())
    step = Step.wait_for_signal("a", signal="b", timeout=timedelta(hours=1), on_timeout="c", next_step="d")
    assert (step.signal, step.timeout, step.targets, step.timeout_target) == ("b", 3600.0, ("d", "c"), "c")


def test_a_moment_keeps_its_zone() -> None:
    zone = timezone(timedelta(hours=2))
    assert as_moment(datetime(2026, 1, 1, tzinfo=zone)).tzinfo is zone


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        Step.lambda_("a", work, colour="red")  # type: ignore[call-arg]


def test_a_kind_cannot_be_built_without_what_it_needs() -> None:
    with pytest.raises(TypeError):
        LambdaStep(name="a")  # type: ignore[call-arg]
