"""The public names for authors of stores: the protocol `RunStore`, its optional capabilities, and their types."""

from spine_async._model.due import (
    Backlog,
    Delivery,
    DueRequest,
    DueRun,
    DueRuns,
    Message,
    NewMessage,
    Notice,
    OpenWait,
    RunState,
    Sweep,
)
from spine_async._model.fork import ForkOutcome, NewFork
from spine_async._model.queue import Queue
from spine_async._model.run_change import Release, RunChange, RunEnd
from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_filter import RunCursor, RunFilter
from spine_async._model.run_row import DueTime, NewRun, StoredRun
from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async._model.status import RunStatus, StepStatus, StepType
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import EventRow, PastPage, PastVisit, VisitRow
from spine_async.ports import (
    CallerTransactionStore,
    CommitOutcome,
    DeleteIf,
    DueRunStore,
    ForkStore,
    LastRowStore,
    Listener,
    OutlineStore,
    RunIdLockedError,
    RunStore,
    ScheduleStore,
    StepTransaction,
    SummaryStore,
    TransactionStore,
)
from spine_async.storage.derived_events import has_events, merge_events, started_event
from spine_async.storage.run_selection import matches, select_runs
from spine_async.storage.visit_selection import select_visits

__all__ = [
    "OWN_VISITS",
    "Backlog",
    "Busy",
    "CallerTransactionStore",
    "Claim",
    "CommitOutcome",
    "DeleteIf",
    "Delivery",
    "DueRequest",
    "DueRun",
    "DueRunStore",
    "DueRuns",
    "DueTime",
    "EventRow",
    "ForkOutcome",
    "ForkStore",
    "LastRowStore",
    "Listener",
    "Message",
    "NewFork",
    "NewMessage",
    "NewRun",
    "NewSchedule",
    "NoRoom",
    "Notice",
    "OpenWait",
    "OutlineStore",
    "PastPage",
    "PastVisit",
    "Queue",
    "Release",
    "Renewal",
    "RunChange",
    "RunCursor",
    "RunEnd",
    "RunFilter",
    "RunIdLockedError",
    "RunState",
    "RunStatus",
    "RunStore",
    "ScheduleChange",
    "ScheduleStore",
    "StepStatus",
    "StepTransaction",
    "StepType",
    "StoredRun",
    "StoredSchedule",
    "SummaryStore",
    "Sweep",
    "TransactionStore",
    "VisitFilter",
    "VisitRow",
    "has_events",
    "matches",
    "merge_events",
    "select_runs",
    "select_visits",
    "started_event",
]
