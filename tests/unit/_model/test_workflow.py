from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from spine_async._model.map_step import MapStep
from spine_async._model.output_model import SignalOutput
from spine_async._model.step import Step
from spine_async._model.workflow import Workflow
from spine_async.errors import DefinitionError, DuplicateStepError, UnknownStepError


class Params(BaseModel):
    day: str


def work(context: object, config: dict[str, object]) -> None: ...


def other_work(context: object, config: dict[str, object]) -> None: ...


def always(context: object) -> bool:
    return True


A, B, C = (Step.lambda_(name, work) for name in "abc")


def test_a_workflow_holds_what_it_was_given() -> None:
    flow = Workflow(
        "load",
        [A, B],
        domain="prices",
        description="d",
        version=2,
        defaults={"n": (1, 2)},
        tags=["x"],
        params_model=Params,
    )
    assert (flow.name, flow.steps, flow.step_names, flow.domain) == ("load", (A, B), ("a", "b"), "prices")
    assert (flow.description, flow.version, flow.tags, flow.params_model) == ("d", 2, ("x",), Params)
    assert flow.defaults == {"n": [1, 2]}
    assert flow.step("b") is B


def test_a_workflow_is_frozen() -> None:
    flow = Workflow("load", [A], defaults={"n": 1})
    with pytest.raises(AttributeError):
        flow.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        flow.defaults["n"] = 2  # type: ignore[index]


def test_the_error_of_an_unknown_step_names_the_known_ones() -> None:
    with pytest.raises(UnknownStepError) as caught:
        Workflow("load", [A, B]).step("x")
    assert str(caught.value) == "workflow 'load': there is no step 'x'; the steps are 'a', 'b'"


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (
            lambda: Workflow("load", [A, B, A]),
            DuplicateStepError,
            "workflow 'load', step 'a': two steps have this name",
        ),
        (
            lambda: Workflow("load", [A, Step.choice("c", always, "a", "nowhere")]),
            UnknownStepError,
            "workflow 'load', step 'c': it jumps to 'nowhere', which is not a step; the steps are 'a', 'c'",
        ),
        (
            lambda: Workflow("load", [Step.choice("c", always, "nowhere")]),
            UnknownStepError,
            "it jumps to 'nowhere', which is not a step",
        ),
        (
            lambda: Workflow("load", [Step.lambda_("x", work, next_step="y")]),
            UnknownStepError,
            "workflow 'load', step 'x': it jumps to 'y', which is not a step; the steps are 'x'",
        ),
        (lambda: Workflow("load", []), DefinitionError, "workflow 'load': a workflow needs at least one step"),
        (lambda: Workflow("load"), DefinitionError, "workflow 'load': a workflow needs at least one step"),
        (lambda: Workflow("load", ["a"]), DefinitionError, "is not a step; create it with Step.lambda_"),  # type: ignore[list-item]
        (lambda: Workflow(7, [A]), DefinitionError, "a name must be a string, not int"),  # type: ignore[arg-type]
        (lambda: Workflow("a\nb", [A]), DefinitionError, "a name must not contain control characters"),
        (lambda: Workflow("x" * 201, [A]), DefinitionError, "a name of 201 characters is too long"),
        (
            lambda: Workflow("load", [A], version=0),
            DefinitionError,
            "workflow 'load': version is 0; it must be an integer of at least 1",
        ),
        (lambda: Workflow("load", [A], version="2"), DefinitionError, "version is '2'"),  # type: ignore[arg-type]
        (lambda: Workflow("load", [A], tags="x"), DefinitionError, "tags is a string; pass a sequence of strings"),
        (
            lambda: Workflow("load", [A], params_model=dict),  # type: ignore[arg-type]
            DefinitionError,
            "params_model is <class 'dict'>; it must be a pydantic model class",
        ),
        (
            lambda: Workflow("load", [A], defaults={"x": {1, 2}}),
            DefinitionError,
            "workflow 'load': defaults: $.x: a value of type set has no JSON form",
        ),
        (
            lambda: Workflow("load", [Step.map("m", items=[1], iterator=7)]),  # type: ignore[arg-type]
            DefinitionError,
            "workflow 'load', step 'm': iterator is 7; it must be a workflow or a handler",
        ),
    ],
)
def test_a_workflow_that_is_wrong_is_refused(build: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        build()
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_workflow_without_a_name_can_be_an_iterator() -> None:
    inner = Workflow(steps=[A])
    flow = Workflow("load", [Step.map("m", items=[1], iterator=inner)])
    step = flow.step("m")
    assert isinstance(step, MapStep)
    assert step.item_workflow is inner


def test_a_handler_as_iterator_becomes_a_workflow_of_one_lambda() -> None:
    step = Workflow("load", [Step.map("m", items=[1], iterator=work)]).step("m")
    assert isinstance(step, MapStep)
    assert step.item_workflow.step_names == ("item",)


def test_a_choice_may_jump_backwards() -> None:
    assert Workflow("load", [A, Step.choice("again", always, "a")]).step_names == ("a", "again")


def test_the_fingerprint_is_that_of_the_plan() -> None:
    base = Workflow("load", [A, B])
    assert base.fingerprint == Workflow("load", [Step.lambda_("a", other_work), B], description="other").fingerprint
    others = [
        Workflow("load", [B, A]),
        Workflow("load", [A]),
        Workflow("load", [A, B], version=2),
        Workflow("other", [A, B]),
        Workflow("load", [A, Step.pipeline("b", "p")]),
        Workflow("load", [A, Step.lambda_("b", work, next_step="a")]),
        Workflow("load", [A, Step.map("b", items=[1], iterator=work)]),
        Workflow("load", [A, Step.map("b", items=[1], iterator=Workflow(steps=[C]))]),
        Workflow("load", [A, Step.wait("b", 1)]),
        Workflow("load", [A, Step.wait("b", 2)]),
        Workflow("load", [A, Step.wait_for_signal("b")]),
        Workflow("load", [A, Step.wait_for_signal("b", signal="c")]),
        Workflow("load", [A, Step.wait_for_signal("b", timeout=1)]),
        Workflow("load", [A, Step.wait_for_signal("b", timeout=1, on_timeout="continue")]),
        Workflow("load", [A, Step.wait_for_signal("b", timeout=1, on_timeout="a")]),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1


def test_output_models_are_found_by_step() -> None:
    signal = Step.wait_for_signal("c", model=Params)
    flow = Workflow("load", [Step.lambda_("a", work, output_model=Params), B, signal, Step.wait_for_signal("d")])
    assert flow.models == {"a": Params, "c": SignalOutput(Params)}


def test_the_step_that_follows_a_timeout_must_exist() -> None:
    with pytest.raises(UnknownStepError, match="workflow 'load', step 'b': it jumps to 'z', which is not a step"):
        Workflow("load", [A, Step.wait_for_signal("b", timeout=1, on_timeout="z")])
