"""What one step came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spine_async._model.failure import ErrorCategory, classify, describe, retry_after, storable_text
from spine_async._model.quality import QualityMetrics
from spine_async._model.status import StepStatus
from spine_async.errors import StepError

_COMPLETED, _SKIPPED, _FAILED = StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.FAILED


@dataclass(frozen=True, slots=True)
class StepEvent:
    """An event of a step's own, stored among the run's events.

    Args:
        event_type: Its type, in the user's words.
        metadata: What else is to be known; must have a strict JSON form.
    """

    event_type: str
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step came to: success, failure, a skip, or a stop of the whole run.

    Build one with `ok`, `fail`, `skip` or `stop`.

    Attributes:
        success: True for ok, skip and stop.
        output: What later steps read under the step's name.
        context_updates: Params that change for the steps after this one.
        quality: What the step measured about its data.
        events: Events of its own.
        error: What went wrong, or None.
        category: Error category of a failure, or None.
        retry_after: Seconds to wait before the next attempt; overrides the policy's delay.
        skip_reason: Why the step did nothing, or None.
        stop_reason: Why the run is to stop here, or None.
        exception: The exception behind a failure, as long as it is in memory.
    """

    success: bool
    output: object = None
    context_updates: Mapping[str, object] | None = None
    quality: QualityMetrics | None = None
    events: tuple[StepEvent, ...] = ()
    error: str | None = None
    category: str | None = None
    retry_after: float | None = None
    skip_reason: str | None = None
    stop_reason: str | None = None
    exception: BaseException | None = field(default=None, compare=False, repr=False)

    @classmethod
    def ok(
        cls,
        output: object = None,
        context_updates: Mapping[str, object] | None = None,
        quality: QualityMetrics | None = None,
        events: Iterable[StepEvent | Mapping[str, object] | str] | None = None,
    ) -> StepResult:
        """The step succeeded."""
        return cls(True, output, context_updates, quality, as_events(events))

    @classmethod
    def fail(  # noqa: PLR0917 - the order of the contract
        cls,
        error: str | BaseException,
        category: str = ErrorCategory.INTERNAL,
        output: object = None,
        quality: QualityMetrics | None = None,
        events: Iterable[StepEvent | Mapping[str, object] | str] | None = None,
        retry_after: float | None = None,
    ) -> StepResult:
        """The step failed; whether it is tried again is the policy's decision."""
        told = describe(error) if isinstance(error, BaseException) else storable_text(str(error))
        caught = error if isinstance(error, BaseException) else None
        return cls(
            False,
            output,
            None,
            quality,
            as_events(events),
            told,
            storable_text(str(category)),
            retry_after,
            exception=caught,
        )

    @classmethod
    def skip(cls, reason: str, output: object = None) -> StepResult:
        """The step had nothing to do; the run goes on."""
        return cls(True, output, skip_reason=storable_text(str(reason)))

    @classmethod
    def stop(cls, reason: str, output: object = None) -> StepResult:
        """The step is done and the run ends here as `stopped`; a resume goes on after this step."""
        return cls(True, output, stop_reason=storable_text(str(reason)))

    @classmethod
    def from_exception(cls, error: BaseException) -> StepResult:
        """The failure that an exception out of a step stands for."""
        return cls.fail(error, classify(error), retry_after=retry_after(error))

    @property
    def status(self) -> StepStatus:
        """Completed (also where the run is to stop), skipped or failed."""
        if not self.success:
            return _FAILED
        return _SKIPPED if self.skip_reason is not None else _COMPLETED

    @property
    def as_exception(self) -> BaseException:
        """The exception behind a failure; a `StepError` where the failure was returned, not raised."""
        return self.exception or StepError(self.error or "", self.category or ErrorCategory.INTERNAL)


def as_events(given: Iterable[StepEvent | Mapping[str, object] | str] | None) -> tuple[StepEvent, ...]:
    """A step's own events in one form; a string is an event without metadata.

    Raises:
        TypeError: One of them is none of the three forms.
    """
    return tuple(_as_event(each) for each in given or ())


def _as_event(given: StepEvent | Mapping[str, object] | str) -> StepEvent:
    if isinstance(given, StepEvent):
        return given
    if isinstance(given, str):
        return StepEvent(given)
    if isinstance(given, Mapping):
        kind = given.get("event_type") or given.get("type")
        if isinstance(kind, str):
            rest = {key: value for key, value in given.items() if key not in ("event_type", "type", "metadata")}
            metadata = given.get("metadata")
            return StepEvent(kind, {**rest, **metadata} if isinstance(metadata, Mapping) else rest)
    raise TypeError("an event is a StepEvent, a string, or a mapping with 'event_type'")
