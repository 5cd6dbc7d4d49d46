"""Gives the engine access to private parts of a `WorkflowContext`: encoded values, models and the running attempt."""

from __future__ import annotations

from collections.abc import Mapping

from spine_async._model.context import WorkflowContext
from spine_async._model.document import Document
from spine_async._model.layered import LayeredMap
from spine_async._model.output_model import OutputModel


def frame_of(context: WorkflowContext) -> object | None:
    """The `frame` that the engine has stored in the context of an attempt."""
    return context._frame


def params_of(context: WorkflowContext) -> LayeredMap[Document]:
    """Params as they are stored."""
    return context._params


def outputs_of(context: WorkflowContext) -> LayeredMap[Document]:
    """Outputs as they are stored."""
    return context._outputs


def models_of(context: WorkflowContext) -> Mapping[str, OutputModel]:
    """The models that outputs are decoded to, by step name."""
    return context._models


def with_documents(
    context: WorkflowContext,
    params: Mapping[str, Document] | None = None,
    outputs: Mapping[str, Document] | None = None,
) -> WorkflowContext:
    """`with_params` and `with_output` for encoded values."""
    return context._with_documents(params, outputs)


def with_models(context: WorkflowContext, models: Mapping[str, OutputModel]) -> WorkflowContext:
    """A context that decodes the outputs of these steps as these models, and other outputs as plain values."""
    return context._with_models(models)


def for_attempt(
    context: WorkflowContext, step_name: str, attempt: int, idempotency_key: str, frame: object
) -> WorkflowContext:
    """The context of one attempt of a step. It has views of its own, so that attempts share no decoded values."""
    return context._for_attempt(step_name, attempt, idempotency_key, frame)


def for_item(context: WorkflowContext, params: Mapping[str, Document]) -> WorkflowContext:
    """The initial context of a map item: the given one, with additional params."""
    return context._for_item(params)


def outside_steps(context: WorkflowContext) -> WorkflowContext:
    """The context without the attributes of a step."""
    return context._outside_steps()
