from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy, deepcopy
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pytest
from pydantic import BaseModel

from spine_async._model.context import DRY_RUN_PARAM, WorkflowContext
from spine_async._model.document import Document
from spine_async._model.quality import QualityMetrics
from spine_async.errors import SerializationError


class Load(BaseModel):
    rows: int


def full() -> WorkflowContext:
    return WorkflowContext(
        run_id="run-1",
        workflow_name="orders",
        params={"day": "2026-01-02", "nested": {"a": [1, 2]}},
        outputs={"load": {"rows": 3}},
        quality={"load": QualityMetrics(record_count=3, valid_count=3, custom_metrics={"x": 1.5})},
        partition={"symbol": "IBM"},
        metadata={"resumed": True},
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


def test_an_empty_context_has_nothing() -> None:
    context = WorkflowContext()
    assert (context.run_id, dict(context.params), dict(context.outputs), dict(context.quality)) == ("", {}, {}, {})
    assert (context.partition, dict(context.metadata), context.started_at) == (None, {}, None)
    assert (context.step_name, context.attempt, context.idempotency_key, context.is_dry_run) == (None, 0, None, False)


def test_values_are_read_by_name_with_a_default() -> None:
    context = full()
    assert context.get_param("day") == "2026-01-02"
    assert context.get_param("none", 7) == 7
    assert context.get_output("load") == {"rows": 3}
    assert context.get_output("load", "rows") == 3
    assert context.get_output("load", "none", 7) == 7
    assert context.get_output("none", "rows", 7) == 7
    assert context.has_output("load")
    assert not context.has_output("none")
    quality = context.get_quality("load")
    assert quality is not None
    assert quality.record_count == 3
    assert context.get_quality("none") is None


def test_a_key_of_an_output_that_has_none_is_the_default() -> None:
    assert WorkflowContext(outputs={"count": 3}).get_output("count", "rows", "none") == "none"


def test_every_with_gives_a_new_context_and_leaves_the_old_one() -> None:
    old = full()
    new = (
        old.with_params({"day": "later", "more": 1})
        .with_output("save", {"ok": True})
        .with_quality("save", QualityMetrics(record_count=1))
        .with_metadata({"note": "x"})
    )
    assert old.to_dict() == full().to_dict()
    assert dict(new.params) == {"day": "later", "nested": {"a": [1, 2]}, "more": 1}
    assert set(new.outputs) == {"load", "save"}
    assert set(new.quality) == {"load", "save"}
    assert dict(new.metadata) == {"resumed": True, "note": "x"}
    assert (new.run_id, new.partition, new.started_at) == (old.run_id, old.partition, old.started_at)


@pytest.mark.parametrize("name", ["run_id", "params", "anything"])
def test_a_context_cannot_be_changed(name: str) -> None:
    with pytest.raises(AttributeError, match="a context is immutable; create a new one with with_params"):
        setattr(full(), name, "x")


@pytest.mark.parametrize("view", ["params", "outputs", "quality", "metadata", "partition"])
def test_its_mappings_cannot_be_changed(view: str) -> None:
    with pytest.raises(TypeError):
        getattr(full(), view)["x"] = 1


def test_a_context_keeps_copies_of_what_it_is_given() -> None:
    params: dict[str, Any] = {"rows": [1]}
    context = WorkflowContext(params=params)
    params["rows"].append(2)
    assert context.params["rows"] == [1]


def test_what_one_attempt_changes_in_a_value_no_other_sees() -> None:
    context = full()
    first = context._for_attempt("s", 1, "key", None)
    nested: Any = first.params["nested"]
    nested["a"].append(99)
    second = context._for_attempt("s", 2, "key", None)
    assert second.params["nested"] == {"a": [1, 2]}
    assert context.params["nested"] == {"a": [1, 2]}


def test_inside_a_step_it_says_which() -> None:
    context = full()._for_attempt("save", 2, "key-1", None)
    assert (context.step_name, context.attempt, context.idempotency_key) == ("save", 2, "key-1")
    assert "step 'save'" in repr(context)


def test_its_picture_shows_no_values() -> None:
    assert repr(full()) == "<WorkflowContext of run 'run-1'>"


def test_to_dict_and_from_dict_are_each_others_inverse() -> None:
    stored = full().to_dict()
    assert WorkflowContext.from_dict(stored).to_dict() == stored
    assert WorkflowContext.from_dict(json.loads(json.dumps(stored))).to_dict() == stored
    assert WorkflowContext.from_dict({}).to_dict() == WorkflowContext().to_dict()


@pytest.mark.parametrize("stored", [{"params": [1]}, {"outputs": "x"}, {"quality": {"load": {"unknown": 1}}}])
def test_what_to_dict_never_wrote_is_refused(stored: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="this is not a context written by to_dict"):
        WorkflowContext.from_dict(stored)


@pytest.mark.parametrize(
    "build",
    [
        lambda: WorkflowContext(params={"x": object()}),
        lambda: WorkflowContext(outputs={"x": {1, 2}}),
        lambda: WorkflowContext().with_params({"x": float("nan")}),
        lambda: WorkflowContext().with_output("x", b"\xff"),
        lambda: WorkflowContext(params={1: 2}),  # type: ignore[dict-item]
    ],
)
def test_values_without_a_json_form_are_refused(build: Any) -> None:
    with pytest.raises(SerializationError):
        build()


def test_outputs_are_revived_as_models() -> None:
    context = full()._with_models({"load": Load})
    assert context.get_output("load") == Load(rows=3)
    assert context.get_output("load", "rows") == 3
    assert context.get_output("load", "none", 7) == 7
    assert context.to_dict() == full().to_dict()
    assert context.with_output("save", {"n": 1}).get_output("load") == Load(rows=3)


def test_encoded_values_are_laid_over_as_they_are() -> None:
    context = full()
    assert context._with_documents() is context
    grown = context._with_documents({"day": Document('"x"')}, {"save": Document("[1]")})
    assert grown.params["day"] == "x"
    assert grown.outputs["save"] == [1]
    params, outputs = grown._params, grown._outputs
    assert params["day"] == Document('"x"')
    assert outputs["load"] == Document('{"rows":3}')


def test_a_dry_run_is_recognised_by_its_param() -> None:
    assert WorkflowContext(params={DRY_RUN_PARAM: True}).is_dry_run
    assert not WorkflowContext(params={DRY_RUN_PARAM: "yes"}).is_dry_run


def test_a_hundred_outputs_are_not_copied_each_time() -> None:
    context = WorkflowContext()
    for number in range(1000):
        context = context.with_output(f"step-{number}", number)
    assert len(context.outputs) == 1000
    assert context.get_output("step-0") == 0


def test_a_subclass_stays_one() -> None:
    class Mine(WorkflowContext):
        __slots__ = ()

    assert isinstance(Mine().with_params({"a": 1}), Mine)


class Remembering(WorkflowContext):
    @cached_property
    def total(self) -> int:
        return sum(self.params["n"])


def test_what_a_subclass_remembers_is_not_carried_along() -> None:
    context = Remembering(params={"n": [1, 2]})
    assert (context.total, context.with_params({"n": [5]}).total) == (3, 5)


@pytest.mark.parametrize("copied", [copy, deepcopy])
def test_a_copy_shares_no_values(copied: Callable[[WorkflowContext], WorkflowContext]) -> None:
    context = full()
    nested: Any = copied(context).params["nested"]
    nested["a"].append(99)
    assert copied(context).params["nested"] == context.params["nested"] == {"a": [1, 2]}
