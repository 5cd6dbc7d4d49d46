"""The run that a request to execute a workflow creates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from spine_async import (
    DefinitionError,
    InvalidParamsError,
    QualityMetrics,
    SerializationError,
    UnknownStepError,
    Workflow,
    WorkflowContext,
    WorkflowRunnerConfig,
)
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.request import Request, has_same_params, new_run
from spine_async._engine.step.param_documents import mapping_documents
from spine_async._model.run_row import NewRun, StoredRun
from tests.unit._engine.builders import NOW, FixedClock, plain

WORKFLOW = Workflow("w", [plain("a"), plain("b")], version=3)


def runtime(*, is_dry: bool = False, emit_events: bool = True) -> Runtime:
    """A runtime with the members that a request reads; it cannot execute anything."""
    unused: Any = None
    config = WorkflowRunnerConfig(emit_events=emit_events, lease_ttl=7)
    return Runtime(
        config, unused, unused, FixedClock(), unused, {}, [], None, unused, unused, owner="me", is_dry=is_dry
    )


def created(
    workflow: Workflow = WORKFLOW,
    params: Mapping[str, object] | None = None,
    *,
    is_dry: bool = False,
    **request: Any,
) -> NewRun:
    optional = {"partition": None, "context": None, "start_from": None} | request
    return new_run(runtime(is_dry=is_dry), Request(workflow, params, run_id="r", **optional))


def digest(params: Mapping[str, object] | None = None, **request: Any) -> str:
    return request_digest(created(WORKFLOW, params, **request))


def request_digest(new: NewRun) -> str:
    assert new.request_hash is not None
    return new.request_hash


def params_of(new: NewRun) -> dict[str, object]:
    params: dict[str, object] = json.loads(new.params)
    return params


def test_a_new_run_has_the_facts_of_workflow_and_runner() -> None:
    new = created(params={"x": 1}, start_from="b", partition={"day": 2})
    assert (new.run_id, new.workflow_name, new.workflow_version) == ("r", "w", 3)
    assert (new.fingerprint, new.total_steps, new.start_from) == (WORKFLOW.fingerprint, 2, "b")
    assert (new.owner, new.created_at, new.lease_ttl, new.records_events) == ("me", NOW, 7, True)
    assert (new.params, new.partition) == ('{"x":1}', '{"day":2}')
    assert (new.initial_outputs, new.initial_quality, new.metadata) == ("{}", "{}", "{}")


def test_a_run_without_events_is_created_as_such() -> None:
    request = Request(WORKFLOW, None, None, None, None, "r")
    assert new_run(runtime(emit_events=False), request).records_events is False


def test_two_requests_have_different_tokens() -> None:
    assert created().commit_id != created().commit_id


def test_given_params_replace_those_of_the_context_which_replace_the_defaults() -> None:
    workflow = Workflow("w", [plain("a")], defaults={"default": 0, "context": 0, "given": 0})
    context = WorkflowContext(params={"context": 1, "given": 1, "both": 1})
    new = created(workflow, {"given": 2, "both": 2}, context=context)
    assert params_of(new) == {"default": 0, "context": 1, "given": 2, "both": 2}


def test_params_are_replaced_whole_not_merged() -> None:
    workflow = Workflow("w", [plain("a")], defaults={"options": {"a": 1, "b": 2}})
    assert params_of(created(workflow, {"options": {"a": 3}})) == {"options": {"a": 3}}


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize(
    "params", [{"a": 2}, {"a": "1"}, {"b": 1}, {}, {"a": 1, "b": None}, {"a": [1]}, {"a": {"b": 1}}]
)
def test_other_params_have_another_digest(params: dict[str, object]) -> None:
    assert digest(params) != digest({"a": 1})


def test_the_order_in_a_list_is_part_of_the_digest() -> None:
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})


def test_the_start_is_part_of_the_digest() -> None:
    digests = {digest(params, start_from=start) for params in (None, {"a": 1}) for start in (None, "a", "b")}
    assert len(digests) == 6


def test_defaults_are_no_part_of_the_digest_and_the_context_is_as_if_it_was_given() -> None:
    workflow = Workflow("w", [plain("a")], defaults={"a": 1})
    given = digest({"a": 1, "b": 2})
    assert request_digest(created(workflow, {"b": 2})) == digest({"b": 2})
    assert created(workflow, {"b": 2}).params_hash == given
    assert digest({"b": 2}, context=WorkflowContext(params={"a": 1})) == given


@pytest.mark.parametrize("params", [None, {}])
def test_a_run_without_params_has_the_digest_of_an_empty_object(params: dict[str, object] | None) -> None:
    new = created(params=params)  # the digest is stored, so it is part of the stored form: sha256 of `[null, {}]`
    assert (new.params, new.params_hash, new.request_hash) == ("{}", *2 * ("35d6cbd33ccf5eb2a1bb6b00bf8e95e4",))


def test_partition_outputs_quality_and_metadata_come_from_the_context() -> None:
    context = WorkflowContext(
        outputs={"load": {"n": 1}},
        quality={"load": QualityMetrics(record_count=4)},
        partition={"day": 1},
        metadata={"by": "hand"},
    )
    new = created(context=context)
    assert (new.initial_outputs, new.partition, new.metadata) == ('{"load":{"n":1}}', '{"day":1}', '{"by":"hand"}')
    assert json.loads(new.initial_quality)["load"]["record_count"] == 4
    assert created(context=context, partition={"day": 2}).partition == '{"day":2}'
    assert created(context=context, partition={}).partition == "{}"
    assert created().partition is None


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int
    unit: str = "kg"


MODELLED = Workflow("w", [plain("a")], params_model=Params)


def test_the_params_model_converts_and_completes_the_params() -> None:
    assert params_of(created(MODELLED, {"size": "3"})) == {"size": 3, "unit": "kg"}


def test_the_digest_is_that_of_the_params_before_validation() -> None:
    new = created(MODELLED, {"size": "3"})
    assert request_digest(new) == digest({"size": "3"})
    assert new.params_hash == digest({"unit": "kg", "size": 3})


def test_requests_are_compared_by_the_params_as_given() -> None:
    stored = StoredRun.from_new(created(MODELLED, {"size": "3"}))
    assert has_same_params(created(MODELLED, {"size": "3"}), stored)
    assert not has_same_params(created(MODELLED, {"size": 3}), stored)


@pytest.mark.parametrize("params", [{"size": "3"}, {"unit": "kg", "size": 3}])
def test_an_older_row_with_one_digest_matches_before_or_after_validation(params: dict[str, object]) -> None:
    new = created(MODELLED, {"size": "3"})
    old = replace(StoredRun.from_new(new), params_hash=digest(params), request_hash=None)
    assert has_same_params(new, old)
    assert not has_same_params(created(MODELLED, {"size": 4}), old)


def test_params_that_the_model_refuses_are_refused() -> None:
    with pytest.raises(InvalidParamsError, match="the params do not fit") as caught:
        created(MODELLED, {"size": "many"})
    assert caught.value.workflow == "w"


def test_a_dry_run_adds_its_mark_after_validation() -> None:
    assert params_of(created(MODELLED, {"size": 1}, is_dry=True)) == {"size": 1, "unit": "kg", "__dry_run__": True}


@pytest.mark.parametrize(
    ("request_of", "error", "message"),
    [
        ({"workflow": "w"}, DefinitionError, "'w' is not a workflow; create one with Workflow"),
        ({"workflow": Workflow(steps=[plain("a")])}, DefinitionError, "a workflow needs a name to be executed"),
        ({"start_from": "c"}, UnknownStepError, "there is no step 'c'"),
        ({"params": [("a", 1)]}, InvalidParamsError, "params is of type list; it must be a mapping of names to values"),
        ({"partition": "day"}, InvalidParamsError, "partition is of type str; it must be a mapping"),
        ({"params": {"a": object()}}, SerializationError, "params"),
        ({"partition": {"a": float("nan")}}, SerializationError, "partition"),
    ],
)
def test_a_request_that_cannot_be_stored_is_refused(
    request_of: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        created(**request_of)


def test_the_documents_of_a_mapping_are_its_values() -> None:
    documents = mapping_documents("params", {"a": [1], "b": None}, 1_000)
    assert {name: document.text for name, document in documents.items()} == {"a": "[1]", "b": "null"}
