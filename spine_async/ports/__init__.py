"""What the engine needs from outside, as Protocols."""

from spine_async.ports.clock import Clock
from spine_async.ports.dispatcher import Dispatcher
from spine_async.ports.observer import Observer, RunSpan, StepSpan
from spine_async.ports.store import CommitOutcome, RunStore

__all__ = ["Clock", "CommitOutcome", "Dispatcher", "Observer", "RunSpan", "RunStore", "StepSpan"]
