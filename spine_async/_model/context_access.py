"""Gives the engine access to private parts of a `WorkflowContext`: encoded values, models and the running attempt."""

from __future__ import annotations

from collections.abc import Mapping

from spine_async._model.context import WorkflowContext
from spine_async._model.document import Document
from spine_async._model.layered import NO_ENTRIES, LayeredMap
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


def has_failures(context: WorkflowContext) -> bool:
    """Whether a step of the run has ever failed after which the run continued."""
    return context._failures is not NO_ENTRIES


def models_of(context: WorkflowContext) -> Mapping[str, OutputModel]:
    """The models that outputs are decoded to, by step name."""
    return context._models


def with_models(context: WorkflowContext, models: Mapping[str, OutputModel]) -> WorkflowContext:
    """A context that decodes the outputs of these steps as these models, and other outputs as plain values."""
    return context._with_models(models)


def outside_steps(context: WorkflowContext) -> WorkflowContext:
    """The context without the attributes of a step."""
    return context._outside_steps()


# Each step calls the following ones, so no function stands between them and the methods.

for_attempt = WorkflowContext._for_attempt
"""The context of one attempt of a step. It has views of its own, so that attempts share no decoded values."""

for_item = WorkflowContext._for_item
"""The initial context of a map item: the given one, with additional params."""

with_failure = WorkflowContext._with_failure
"""A context in which the last visit of a step failed, or did not fail."""

for_child = WorkflowContext._for_child
"""The initial context of a child workflow."""

with_documents = WorkflowContext._with_documents
"""`with_params` and `with_output` for encoded values."""
