"""Metrics that are read at each collection: how many runs are held, due and parked.

An SDK keeps the callbacks of an instrument for ever, and ignores those of a second instrument with the same name. So
the runners with one provider share their instruments, which know them by weak references.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter_provider

from spine_async._model.due import Backlog
from spine_async.telemetry import names

_MOST_SECONDS = 1.0  # of waiting for a store


class CountedRuns(Protocol):
    """A runner whose runs are counted; its members are used in any thread."""

    @property
    def held(self) -> int:
        """Number of runs that it executes."""
        ...

    @property
    def location(self) -> str | None:
        """Where its runs are stored; None if it is not in use."""
        ...

    def backlog(self, seconds: float) -> Backlog | None:
        """The runs that no process holds; None if that is not known within this number of seconds."""
        ...


class RunGauges:
    """The instruments of all runners with one provider."""

    def __init__(self, meter: Meter) -> None:
        self._runners: WeakSet[CountedRuns] = WeakSet()
        self._lock = threading.Lock()
        self._backlogs: Mapping[str, Backlog] = {}
        self._observed = {names.RUNS_DUE, names.RUNS_PARKED}
        held, due, parked = names.RUNS_HELD, names.RUNS_DUE, names.RUNS_PARKED
        meter.create_observable_up_down_counter(held.name, [self._held], held.unit, held.meaning)
        meter.create_observable_gauge(due.name, [self._due], due.unit, due.meaning)
        meter.create_observable_gauge(parked.name, [self._parked], parked.unit, parked.meaning)

    def add(self, runner: CountedRuns) -> None:
        """Count the runs of a runner as long as it exists."""
        with self._lock:
            self._runners.add(runner)

    def _held(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(sum(each.held for each in self._all()))]

    def _due(self, options: CallbackOptions) -> Iterable[Observation]:
        return _by_queue(each.due for each in self._read(names.RUNS_DUE, options))

    def _parked(self, options: CallbackOptions) -> Iterable[Observation]:
        return _by_queue(each.parked for each in self._read(names.RUNS_PARKED, options))

    def _read(self, metric: names.MetricEntry, options: CallbackOptions) -> Iterable[Backlog]:
        """The backlogs of all stores. They are read once for both metrics of a collection."""
        if metric in self._observed:
            seconds = min(_MOST_SECONDS, options.timeout_millis / 1000)
            by_store = {location: each for each in self._all() if (location := each.location) is not None}
            read = ((location, each.backlog(seconds)) for location, each in by_store.items())
            self._backlogs = {location: backlog for location, backlog in read if backlog is not None}
            self._observed = set()
        self._observed.add(metric)
        return self._backlogs.values()

    def _all(self) -> list[CountedRuns]:
        with self._lock:
            return list(self._runners)


def _by_queue(counts: Iterable[Mapping[str, int]]) -> list[Observation]:
    total: dict[str, int] = {}
    for each in counts:
        for queue, count in each.items():
            total[queue] = total.get(queue, 0) + count
    return [Observation(count, {names.QUEUE: queue}) for queue, count in total.items()]


def gauges_of(provider: MeterProvider | None, meter: Meter) -> RunGauges:
    """The instruments of the runners with this provider; None means the global one.

    Args:
        provider: The provider.
        meter: Creates the instruments, if there are none.
    """
    is_global = provider is None or provider is get_meter_provider()
    key: object = _GLOBAL if is_global else provider
    with _lock:
        found = _gauges.get(key)
        if found is None:
            found = _gauges[key] = RunGauges(meter)
    return found


class _Global:
    """Stands for the global provider, which is another object before it is set."""


_GLOBAL = _Global()
_lock = threading.Lock()
_gauges: WeakKeyDictionary[object, RunGauges] = WeakKeyDictionary()
