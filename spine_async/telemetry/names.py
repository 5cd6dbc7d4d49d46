"""The names of all spans, attributes and metrics, which `docs/reference/telemetry.md` lists; a test compares both."""

from __future__ import annotations

from dataclasses import dataclass

RUN_ID = "spine.run_id"
WORKFLOW = "spine.workflow"
RESUMED = "spine.resumed"
STATUS = "spine.status"
ERROR_CATEGORY = "spine.error_category"
ERROR_TYPE = "error.type"
STEP = "spine.step"
STEP_TYPE = "spine.step_type"
PATH = "spine.path"
ATTEMPTS = "spine.attempts"
NEXT_STEP = "spine.next_step"
QUEUE = "spine.queue"
COUNT = "spine.count"

ATTRIBUTES = {
    RUN_ID: "id of the run",
    WORKFLOW: "name of the workflow",
    RESUMED: "whether the run is resumed",
    STATUS: "how a run, a step or a result ended; for a run that continues later `parked` or `released`",
    ERROR_CATEGORY: "category of the error; only after a failure",
    ERROR_TYPE: "class of the exception that left the span; only if one did",
    STEP: "name of the step",
    STEP_TYPE: "type of the step",
    PATH: "path of the step visit in the run, for instance `load` or `process_all[17]/resize`",
    ATTEMPTS: "attempts made",
    NEXT_STEP: "where the run continues after a failure that `catch` names; `@end` for the end of the scope",
    QUEUE: "name of the queue; empty for runs of `execute` and `start`",
    COUNT: "number of runs that the call stores",
}
"""The attributes of this library, with their meanings."""

EXCEPTION_TYPE = "exception.type"
EXCEPTION_STACKTRACE = "exception.stacktrace"
EXCEPTION_EVENT = "exception"


@dataclass(frozen=True, slots=True)
class SpanEntry:
    """A span.

    Attributes:
        name: The first word of its name; a name follows.
        of: What the name that follows belongs to.
        kinds: The kinds that it can have, as OpenTelemetry names them.
        attributes: The attributes that it can have.
        links: To what it has a link.
        events: The events that it can have.
    """

    name: str
    of: str
    kinds: tuple[str, ...]
    attributes: tuple[str, ...]
    links: str = ""
    events: tuple[str, ...] = ()

    def named(self, name: str) -> str:
        """The name of the span of a workflow or step with this name."""
        return f"{self.name} {name}"


RUN_SPAN = SpanEntry(
    "workflow",
    "workflow",
    ("INTERNAL", "CONSUMER"),
    (RUN_ID, WORKFLOW, RESUMED, STATUS, ERROR_CATEGORY, ERROR_TYPE),
    links="the execution that it continues, or the `enqueue` that stored the run",
)
STEP_SPAN = SpanEntry(
    "step",
    "step",
    ("INTERNAL",),
    (RUN_ID, STEP, STEP_TYPE, PATH, ATTEMPTS, STATUS, ERROR_CATEGORY, NEXT_STEP, ERROR_TYPE),
    events=(EXCEPTION_EVENT,),
)
ENQUEUE_SPAN = SpanEntry("enqueue", "workflow", ("PRODUCER",), (WORKFLOW, QUEUE, COUNT, ERROR_TYPE))
SPANS = (RUN_SPAN, STEP_SPAN, ENQUEUE_SPAN)

EVENTS = {EXCEPTION_EVENT: (EXCEPTION_TYPE, EXCEPTION_STACKTRACE)}
"""The events of spans, with their attributes."""


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """A metric.

    Attributes:
        name: Its name.
        kind: The kind of its instrument.
        unit: Its unit, in the notation of UCUM, as OpenTelemetry prescribes.
        meaning: What it measures.
        attributes: The attributes that its values can have. None of them is an id.
        boundaries: For a histogram, the upper bounds of its buckets.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    attributes: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()


HISTOGRAM = "histogram"
COUNTER = "counter"
UP_DOWN_COUNTER = "up-down counter"
OBSERVED_SUM = "observable up-down counter"
OBSERVED_GAUGE = "observable gauge"

_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_OUTCOME = (WORKFLOW, STATUS, ERROR_CATEGORY)

RUNS_ENDED = MetricEntry(
    "spine.runs.ended", COUNTER, "{run}", "runs that were recorded as completed, failed or stopped", _OUTCOME
)
RUN_DURATION = MetricEntry(
    "spine.run.duration", HISTOGRAM, "s", "time from the first start of a run to its end", _OUTCOME, _LONG
)
STEP_DURATION = MetricEntry(
    "spine.step.duration",
    HISTOGRAM,
    "s",
    "time of a step visit, with its retries",
    (STEP, STEP_TYPE, STATUS, ERROR_CATEGORY),
    _LONG,
)
STEP_RESULTS = MetricEntry(
    "spine.step.results",
    COUNTER,
    "{result}",
    "results that an extension passed to `runner.metrics.record_step`",
    (STEP, STATUS, ERROR_CATEGORY),
)
RUNS_HELD = MetricEntry("spine.runs.held", OBSERVED_SUM, "{run}", "runs that this process executes")
RUNS_DUE = MetricEntry(
    "spine.runs.due", OBSERVED_GAUGE, "{run}", "runs of the store that a worker may claim now; at most 10,000", (QUEUE,)
)
RUNS_PARKED = MetricEntry(
    "spine.runs.parked",
    OBSERVED_GAUGE,
    "{run}",
    "runs of the store that wait and that no process holds; at most 10,000",
    (QUEUE,),
)
QUEUE_DELAY = MetricEntry(
    "spine.queue.delay",
    HISTOGRAM,
    "s",
    "time from the moment at which an enqueued run was due to its first claim",
    (WORKFLOW, QUEUE),
    _LONG,
)
CLAIM_DURATION = MetricEntry(
    "spine.claim.duration", HISTOGRAM, "s", "time of a call by which a worker claims due runs", boundaries=_SHORT
)
COMMIT_DURATION = MetricEntry("spine.commit.duration", HISTOGRAM, "s", "time of a commit", boundaries=_SHORT)
COMMIT_SIZE = MetricEntry("spine.commit.size", HISTOGRAM, "{run}", "runs that share a commit", boundaries=_SIZES)
LEASE_LAG = MetricEntry(
    "spine.lease.lag",
    HISTOGRAM,
    "s",
    "time from the moment at which leases were to be renewed to their renewal; more than two thirds of `lease_ttl` "
    "loses them",
    boundaries=_SHORT,
)
LOOP_LAG = MetricEntry(
    "spine.loop.lag",
    HISTOGRAM,
    "s",
    "delay of a timer of the event loop, measured four times a second while runs execute",
    boundaries=_SHORT,
)
THREADS_ABANDONED = MetricEntry(
    "spine.threads.abandoned", UP_DOWN_COUNTER, "{thread}", "threads that a cancelled step has left behind and that run"
)
METRICS = (
    RUNS_ENDED,
    RUN_DURATION,
    RUNS_HELD,
    RUNS_DUE,
    RUNS_PARKED,
    QUEUE_DELAY,
    STEP_DURATION,
    STEP_RESULTS,
    CLAIM_DURATION,
    COMMIT_DURATION,
    COMMIT_SIZE,
    LEASE_LAG,
    LOOP_LAG,
    THREADS_ABANDONED,
)

LOG_FIELDS = {
    "run_id": "id of the run whose step logs",
    "step_path": "path of the step visit, as in `spine.path`",
}
"""The attributes that `RunContextFilter` adds to log records, with their meanings."""
