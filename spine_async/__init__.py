"""Durable workflows for async Python: each step is checkpointed, and an interrupted run resumes after its last step."""

from spine_async._engine.runtime.runtime import StepFunction
from spine_async._engine.service.run_filters import RunFilters
from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.context import WorkflowContext
from spine_async._model.failure import ErrorCategory
from spine_async._model.history import Checkpoint, Event, RunRecord
from spine_async._model.parallel_step import ParallelStep
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
from spine_async._model.step import ChoiceStep, LambdaStep, MapStep, PipelineStep, Step, WaitStep
from spine_async._model.step_result import StepEvent, StepResult
from spine_async._model.target import END
from spine_async._model.transaction_step import TransactionStep
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import StepMetric, WorkflowResult
from spine_async._model.workflow_step import WorkflowStep
from spine_async.dispatch import Dispatcher, LocalDispatcher
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
    "LambdaStep",
    "LeaseLostError",
    "LocalDispatcher",
    "MapStep",
    "MissingExtraError",
    "ParallelStep",
    "PipelineStep",
    "Plan",
    "PlannedStep",
    "PlannedTarget",
    "Progress",
    "QualityMetrics",
    "QualityThresholds",
    "Queue",
    "QueueDeadlockError",
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
    "SpineError",
    "Step",
    "StepError",
    "StepEvent",
    "StepFunction",
    "StepMetric",
    "StepResult",
    "StepStatus",
    "StepType",
    "StoreError",
    "StoreUnavailableError",
    "TooManyPendingEventsError",
    "TransactionStep",
    "UnknownStepError",
    "WaitStep",
    "Workflow",
    "WorkflowChangedError",
    "WorkflowContext",
    "WorkflowResult",
    "WorkflowRunner",
    "WorkflowRunnerConfig",
    "WorkflowStep",
    "__version__",
    "wait_first",
]
