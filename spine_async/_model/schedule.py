"""Schedules: when runs of a workflow begin by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias
from zoneinfo import ZoneInfo

from spine_async._model.naming import MAX_NAME_LENGTH, text_problem
from spine_async._model.queue import DEFAULT_QUEUE, check_queue_name
from spine_async._model.shown import shown
from spine_async._model.time_option import in_utc, option_seconds
from spine_async._model.workflow import Workflow
from spine_async.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterator

Overlap: TypeAlias = Literal["skip", "queue", "allow"]

MAX_SCHEDULE_NAME = 160
"""A run id has at most 200 characters, and contains the name and a time."""

_OVERLAPS = ("skip", "queue", "allow")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SHORTEST = 0.01
_MOST_FIRINGS = 1_000_000


class _Times(Protocol):
    """The times of a schedule."""

    def after(self, moment: datetime) -> datetime:
        """The first time after a moment; both are in UTC."""
        ...

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """The last time after one moment and not after another, or None; all are in UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """Starts a run of a workflow at certain times. Any number of processes with the same schedule start it once.

    The run of a firing has the id `name@<time>`, with the time of the firing in UTC, such as
    `nightly@2026-01-10T02:30:00Z`. A working runner stores it in a queue, where any working runner claims it.

    Attributes:
        name: Name of the schedule.
        workflow: The workflow, or its name where its handlers cannot be imported.
        cron: Cron expression with five fields, such as `30 2 * * MON-FRI`; or a name such as `@daily`. Around a change
            of the clocks, a local time that does not exist is the first moment after the gap, and of one that occurs
            twice the first counts. Expressions whose minute or hour begins with `*` continue in real time.
        every: Seconds, or a `timedelta`, from one firing to the next, in real time. The firings are the multiples of
            this duration since 1970-01-01 UTC, so all processes have the same.
        timezone: Name of the time zone of `cron`, such as `Europe/Berlin`.
        params: Params of the runs.
        queue: Queue of the runs; None means `default`.
        overlap: What happens at a firing if the run of the previous firing has not ended. `skip`: it starts no run.
            `queue`: its run starts after the others. `allow`: its run starts at once.
        catch_up: Seconds, or a `timedelta`. If no process was working at the time of a firing, its run starts late, but
            not later than this. Of several missed firings, only the latest one starts a run.

    Raises:
        DefinitionError: An option is invalid, or not exactly one of `cron` and `every` is given.

    Example:
        >>> every_morning = Schedule("report", "reports", cron="0 6 * * *", timezone="Europe/Berlin")
        >>> Schedule("poll", "polls", every=900).after(datetime(2026, 1, 10, 12, 1, tzinfo=UTC)).isoformat()
        '2026-01-10T12:15:00+00:00'
    """

    name: str
    workflow: Workflow | str
    _: KW_ONLY
    cron: str | None = None
    every: float | timedelta | None = None
    timezone: str = "UTC"
    params: Mapping[str, object] | None = field(default=None, repr=False)
    queue: str | None = None
    overlap: Overlap = "skip"
    catch_up: float | timedelta = 3600.0
    _zone: tzinfo = field(init=False, repr=False, compare=False)
    _times: _Times = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        problem = text_problem(self.name, MAX_SCHEDULE_NAME)
        if problem is None and "@" in self.name:
            problem = "a name must not contain @, which separates the name from the time in the ids of runs"
        if problem is not None:
            raise DefinitionError(f"invalid schedule {self.name!r:.80}: {problem}")
        try:
            self._check_options()
        except ValueError as exc:
            raise DefinitionError(f"schedule {self.name!r}: {exc}") from None

    def _check_options(self) -> None:
        if not isinstance(self.workflow, (Workflow, str)) or not self.workflow_name:
            raise ValueError(f"{shown(self.workflow)} is no workflow with a name; give a Workflow, or its name")
        problem = text_problem(self.workflow_name, MAX_NAME_LENGTH)
        if problem is not None:
            raise ValueError(f"invalid workflow {shown(self.workflow_name)}: {problem}")
        if (self.cron is None) == (self.every is None):
            raise ValueError("give either cron= or every=")
        if self.overlap not in _OVERLAPS:
            raise ValueError(f"overlap is {shown(self.overlap)}; it must be 'skip', 'queue' or 'allow'")
        if self.params is not None and not isinstance(self.params, Mapping):
            raise ValueError(f"params is of type {type(self.params).__name__}; it must be a mapping")
        if self.queue is not None:
            check_queue_name(self.queue)
        option_seconds(self.catch_up, "catch_up")
        object.__setattr__(self, "_zone", _zone(self.timezone))
        object.__setattr__(self, "_times", self._make_times())

    def _make_times(self) -> _Times:
        if self.cron is None:
            return _Interval(self.every)
        if not isinstance(self.cron, str):
            raise DefinitionError(f"cron is of type {type(self.cron).__name__}; it must be a cron expression")
        from spine_async._model.cron import Cron  # noqa: PLC0415 - most schedules of a test suite have none

        return Cron(self.cron, self._zone)

    @property
    def workflow_name(self) -> str:
        """Name of the workflow."""
        return self.workflow if isinstance(self.workflow, str) else self.workflow.name or ""

    @property
    def queue_name(self) -> str:
        """Name of the queue of its runs."""
        return DEFAULT_QUEUE if self.queue is None else self.queue

    @property
    def catch_up_seconds(self) -> float:
        """`catch_up` in seconds."""
        return option_seconds(self.catch_up, "catch_up")

    @property
    def every_seconds(self) -> float | None:
        """`every` in seconds."""
        return None if self.every is None else option_seconds(self.every, "every")

    def next(self, n: int = 1, *, after: datetime | None = None) -> list[datetime]:
        """The next `n` firings as aware datetimes in the time zone of the schedule.

        Args:
            n: How many, from 1 to 1,000,000.
            after: An aware datetime before the first of them; None means now.
        """
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= _MOST_FIRINGS:
            problem = f"n is {shown(n)}; it must be an integer from 1 to {_MOST_FIRINGS:,}"
            raise DefinitionError(f"schedule {self.name!r}: {problem}")
        start = self._moment("after", datetime.now(UTC) if after is None else after)
        return [each.astimezone(self._zone) for each in islice(self._firings(start), n)]

    def after(self, moment: datetime) -> datetime:
        """The first firing after an aware moment, in UTC."""
        return self._first_after(self._moment("moment", moment))

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """The last firing after one moment and not after another, in UTC; None if there is none."""
        begin, end = self._moment("after", after), self._moment("until", until)
        try:
            return self._times.latest(begin, end)
        except OverflowError:
            raise self._out_of_range(end) from None

    def run_id(self, firing: datetime) -> str:
        """The id of the run of a firing."""
        return f"{self.name}@{iso_second(firing)}"

    def _firings(self, after: datetime) -> Iterator[datetime]:
        moment = after
        while True:
            moment = self._first_after(moment)
            yield moment

    def _moment(self, name: str, given: datetime) -> datetime:
        try:
            return in_utc(given, name)
        except ValueError as exc:
            raise DefinitionError(f"schedule {self.name!r}: {exc}") from None

    def _first_after(self, moment: datetime) -> datetime:
        try:
            return self._times.after(moment)
        except OverflowError:
            raise self._out_of_range(moment) from None

    def _out_of_range(self, moment: datetime) -> DefinitionError:
        problem = f"no firing around {moment.isoformat()} lies within the years 1 to 9999"
        return DefinitionError(f"schedule {self.name!r}: {problem}")


class _Interval:
    """The multiples of a duration since 1970.

    Raises:
        ValueError: The duration is invalid.
    """

    def __init__(self, every: object) -> None:
        seconds = option_seconds(every, "every")
        if seconds < _SHORTEST:
            raise ValueError(f"every is {seconds:g} s; it must be at least {_SHORTEST:g} s")
        self._step = round(seconds * 1_000_000)

    def after(self, moment: datetime) -> datetime:
        """The first multiple after the moment."""
        return self._multiple(moment) + self._step * _MICROSECOND

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """The last multiple after one moment and not after another, or None."""
        last = self._multiple(until)
        return last if last > after else None

    def _multiple(self, until: datetime) -> datetime:
        """The last multiple that is not after a moment."""
        number = (until - _EPOCH) // _MICROSECOND // self._step
        return _EPOCH + number * self._step * _MICROSECOND


def iso_second(moment: datetime) -> str:
    """ISO 8601 text in UTC, with `Z`, and with fractions of a second only if there are any."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return f"{utc.isoformat(timespec='microseconds' if utc.microsecond else 'seconds')}Z"


def _zone(name: object) -> tzinfo:
    """The time zone of this name.

    Raises:
        ValueError: There is none.
    """
    if name == "UTC":
        return UTC  # needs no file of the system
    try:
        return ZoneInfo(name)  # type: ignore[arg-type]
    except Exception as exc:  # noqa: BLE001 - a wrong type, an invalid path, a missing or an unreadable file
        problem = "use a name such as 'Europe/Berlin'; on a system without time zones, install the package tzdata"
        raise ValueError(f"timezone is {shown(name)}, which is not known ({type(exc).__name__}); {problem}") from None
