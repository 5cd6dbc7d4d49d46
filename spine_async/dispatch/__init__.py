"""Dispatchers, which run pipelines."""

from spine_async.dispatch.context import PipelineContext, pipeline_context
from spine_async.dispatch.local import LocalDispatcher
from spine_async.dispatch.pipelines import Pipeline, Pipelines
from spine_async.ports.dispatcher import ClosableDispatcher, Dispatcher

__all__ = [
    "ClosableDispatcher",
    "Dispatcher",
    "LocalDispatcher",
    "Pipeline",
    "PipelineContext",
    "Pipelines",
    "pipeline_context",
]
