"""Protocols of the services that the engine uses."""

from spine_async.ports.caller_transaction import CallerTransactionStore, writes_within
from spine_async.ports.clock import Clock
from spine_async.ports.dispatcher import ClosableDispatcher, Dispatcher, is_closable
from spine_async.ports.due_runs import DueRunStore, Listener, NoListener, keeps_due_runs
from spine_async.ports.forks import ForkStore, forks_runs
from spine_async.ports.last_rows import LastRowStore, finds_last_rows
from spine_async.ports.measurements import Measurements, NoMeasurements
from spine_async.ports.observer import Observer, RunSpan, StepSpan
from spine_async.ports.outlines import OutlineStore, reads_outlines
from spine_async.ports.run_store import CommitOutcome, DeleteIf, RunIdLockedError, RunStore
from spine_async.ports.schedules import ScheduleStore, keeps_schedules
from spine_async.ports.step_transaction import StepTransaction, TransactionStore, executes_transactions
from spine_async.ports.summaries import SummaryStore, summarizes_runs

__all__ = [
    "CallerTransactionStore",
    "Clock",
    "ClosableDispatcher",
    "CommitOutcome",
    "DeleteIf",
    "Dispatcher",
    "DueRunStore",
    "ForkStore",
    "LastRowStore",
    "Listener",
    "Measurements",
    "NoListener",
    "NoMeasurements",
    "Observer",
    "OutlineStore",
    "RunIdLockedError",
    "RunSpan",
    "RunStore",
    "ScheduleStore",
    "StepSpan",
    "StepTransaction",
    "SummaryStore",
    "TransactionStore",
    "executes_transactions",
    "finds_last_rows",
    "forks_runs",
    "is_closable",
    "keeps_due_runs",
    "keeps_schedules",
    "reads_outlines",
    "summarizes_runs",
    "writes_within",
]
