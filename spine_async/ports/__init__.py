"""Protocols of the services that the engine uses."""

from spine_async.ports.clock import Clock
from spine_async.ports.dispatcher import Dispatcher
from spine_async.ports.observer import Observer, RunSpan, StepSpan
from spine_async.ports.run_store import CommitOutcome, RunIdLockedError, RunStore

__all__ = ["Clock", "CommitOutcome", "Dispatcher", "Observer", "RunIdLockedError", "RunSpan", "RunStore", "StepSpan"]
