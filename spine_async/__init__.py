"""Durable workflows for async Python: each step is checkpointed, and an interrupted run resumes after its last step.

A module is imported when one of its names is first used. So a program that uses little of the library starts quickly,
for instance `spine-async --help`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spine_async._engine.runtime.runtime import StepFunction
    from spine_async._engine.service.run_filters import RunFilters
    from spine_async._model.choice_step import ChoiceStep
    from spine_async._model.config import WorkflowRunnerConfig
    from spine_async._model.context import WorkflowContext
    from spine_async._model.failure import ErrorCategory
    from spine_async._model.history import Checkpoint, Event, RunRecord
    from spine_async._model.lambda_step import LambdaStep
    from spine_async._model.map_step import MapStep
    from spine_async._model.overview import QueueRecord, SignalWait, SignalWaits, WorkerRecord
    from spine_async._model.parallel_step import ParallelStep
    from spine_async._model.pipeline_step import PipelineStep
    from spine_async._model.plan import Plan, PlannedStep, PlannedTarget
    from spine_async._model.policy import RetryPolicy
    from spine_async._model.progress import Progress
    from spine_async._model.quality import QualityMetrics, QualityThresholds
    from spine_async._model.queue import Enqueued, Queue, RateLimit
    from spine_async._model.retention import RetentionPolicy
    from spine_async._model.schedule import Schedule
    from spine_async._model.schedule_state import ScheduleRecord
    from spine_async._model.signal_step import SignalStep
    from spine_async._model.status import ErrorPolicy, EventType, RunStatus, StepStatus, StepType
    from spine_async._model.step import Step
    from spine_async._model.step_result import StepEvent, StepResult
    from spine_async._model.target import END
    from spine_async._model.transaction_step import TransactionStep
    from spine_async._model.visit_record import ItemState, MapItems, VisitRecord
    from spine_async._model.wait_step import WaitStep
    from spine_async._model.workflow import Workflow
    from spine_async._model.workflow_result import StepMetric, WorkflowResult
    from spine_async._model.workflow_step import WorkflowStep
    from spine_async.dispatch import Dispatcher, LocalDispatcher, PipelineContext, Pipelines, pipeline_context
    from spine_async.errors import (
        AttemptEndedError,
        CorruptRecordError,
        DefinitionError,
        DuplicateStepError,
        InvalidParamsError,
        InvalidPolicyError,
        InvalidRunIdError,
        InvalidSignalError,
        LeaseLostError,
        MissingExtraError,
        QueueDeadlockError,
        RunBusyError,
        RunConflictError,
        RunEndedError,
        RunError,
        RunFailedError,
        RunNotFoundError,
        RunNotResumableError,
        ScheduleNotFoundError,
        SchemaVersionError,
        SerializationError,
        SharingError,
        SpineError,
        StepError,
        StoreCapabilityError,
        StoreError,
        StoreUnavailableError,
        TooManyPendingEventsError,
        UnknownStepError,
        WorkflowChangedError,
    )
    from spine_async.handle import RunHandle, wait_first
    from spine_async.runner import WorkflowRunner

__version__ = "0.1.0"

__all__ = [
    "END",
    "AttemptEndedError",
    "Checkpoint",
    "ChoiceStep",
    "CorruptRecordError",
    "DefinitionError",
    "Dispatcher",
    "DuplicateStepError",
    "Enqueued",
    "ErrorCategory",
    "ErrorPolicy",
    "Event",
    "EventType",
    "InvalidParamsError",
    "InvalidPolicyError",
    "InvalidRunIdError",
    "InvalidSignalError",
    "ItemState",
    "LambdaStep",
    "LeaseLostError",
    "LocalDispatcher",
    "MapItems",
    "MapStep",
    "MissingExtraError",
    "ParallelStep",
    "PipelineContext",
    "PipelineStep",
    "Pipelines",
    "Plan",
    "PlannedStep",
    "PlannedTarget",
    "Progress",
    "QualityMetrics",
    "QualityThresholds",
    "Queue",
    "QueueDeadlockError",
    "QueueRecord",
    "RateLimit",
    "RetentionPolicy",
    "RetryPolicy",
    "RunBusyError",
    "RunConflictError",
    "RunEndedError",
    "RunError",
    "RunFailedError",
    "RunFilters",
    "RunHandle",
    "RunNotFoundError",
    "RunNotResumableError",
    "RunRecord",
    "RunStatus",
    "Schedule",
    "ScheduleNotFoundError",
    "ScheduleRecord",
    "SchemaVersionError",
    "SerializationError",
    "SharingError",
    "SignalStep",
    "SignalWait",
    "SignalWaits",
    "SpineError",
    "Step",
    "StepError",
    "StepEvent",
    "StepFunction",
    "StepMetric",
    "StepResult",
    "StepStatus",
    "StepType",
    "StoreCapabilityError",
    "StoreError",
    "StoreUnavailableError",
    "TooManyPendingEventsError",
    "TransactionStep",
    "UnknownStepError",
    "VisitRecord",
    "WaitStep",
    "WorkerRecord",
    "Workflow",
    "WorkflowChangedError",
    "WorkflowContext",
    "WorkflowResult",
    "WorkflowRunner",
    "WorkflowRunnerConfig",
    "WorkflowStep",
    "__version__",
    "pipeline_context",
    "wait_first",
]

_NAMES = {
    "_engine.runtime.runtime": "StepFunction",
    "_engine.service.run_filters": "RunFilters",
    "_model.choice_step": "ChoiceStep",
    "_model.config": "WorkflowRunnerConfig",
    "_model.context": "WorkflowContext",
    "_model.failure": "ErrorCategory",
    "_model.history": "Checkpoint Event RunRecord",
    "_model.lambda_step": "LambdaStep",
    "_model.map_step": "MapStep",
    "_model.overview": "QueueRecord SignalWait SignalWaits WorkerRecord",
    "_model.parallel_step": "ParallelStep",
    "_model.pipeline_step": "PipelineStep",
    "_model.plan": "Plan PlannedStep PlannedTarget",
    "_model.policy": "RetryPolicy",
    "_model.progress": "Progress",
    "_model.quality": "QualityMetrics QualityThresholds",
    "_model.queue": "Enqueued Queue RateLimit",
    "_model.retention": "RetentionPolicy",
    "_model.schedule": "Schedule",
    "_model.schedule_state": "ScheduleRecord",
    "_model.signal_step": "SignalStep",
    "_model.status": "ErrorPolicy EventType RunStatus StepStatus StepType",
    "_model.step": "Step",
    "_model.step_result": "StepEvent StepResult",
    "_model.target": "END",
    "_model.transaction_step": "TransactionStep",
    "_model.visit_record": "ItemState MapItems VisitRecord",
    "_model.wait_step": "WaitStep",
    "_model.workflow": "Workflow",
    "_model.workflow_result": "StepMetric WorkflowResult",
    "_model.workflow_step": "WorkflowStep",
    "dispatch": "Dispatcher LocalDispatcher PipelineContext Pipelines pipeline_context",
    "errors": (
        "AttemptEndedError CorruptRecordError DefinitionError DuplicateStepError InvalidParamsError "
        "InvalidPolicyError InvalidRunIdError InvalidSignalError LeaseLostError MissingExtraError "
        "QueueDeadlockError RunBusyError RunConflictError RunEndedError RunError RunFailedError "
        "RunNotFoundError RunNotResumableError ScheduleNotFoundError SchemaVersionError SerializationError "
        "SharingError SpineError StepError StoreCapabilityError StoreError StoreUnavailableError "
        "TooManyPendingEventsError UnknownStepError WorkflowChangedError"
    ),
    "handle": "RunHandle wait_first",
    "runner": "WorkflowRunner",
}
"""The public names by module, separated by spaces."""
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
_SUBMODULES = frozenset({"dispatch", "errors", "handle", "ports", "runner", "storage"})
"""Modules that are attributes of the package without an import of their own."""

if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> object:
        if name in _SUBMODULES:
            return import_module(f"{__name__}.{name}")
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
