"""The targets, as data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from benchmarks.contestant import BEFORE
from benchmarks.findings import Findings, Spread
from benchmarks.plan import SQL, Cell, ideal_seconds, largest

Measure = Callable[[Findings, Cell], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    """One performance target.

    Attributes:
        workload: Workload of the target.
        backend: Backend of the target.
        text: Description of the compared values.
        bound: The required value.
        is_least: Whether the bound is a minimum; otherwise it is a maximum.
        measure: Computes the reached value from the largest measured cell; None if it was not measured.
    """

    workload: str
    backend: str
    text: str
    bound: float
    is_least: bool
    measure: Measure


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and the reached value; `note` names the size if it is smaller than that of the target."""

    target: Target
    reached: float | None
    note: str

    @property
    def is_good(self) -> bool | None:
        if self.reached is None:
            return None
        return self.reached >= self.target.bound if self.target.is_least else self.reached <= self.target.bound


def evaluate(findings: Findings) -> list[Verdict]:
    """All targets of the workloads that were measured."""
    return list(_verdicts(findings))


def waiting_efficiency(findings: Findings, cell: Cell) -> float | None:
    """Ideal duration, in which the items only wait, divided by the measured duration."""
    found = findings.value(cell)
    return ideal_seconds(cell) / (cell.size["items"] / found.median) if found else None


def scaling(findings: Findings, cell: Cell) -> float | None:
    """The rate of several processes divided by the ideal one.

    Ideally it grows with the processes until all cores are used: each unit needs as much processor time, of workers and
    server together, as with one process.
    """
    alone = replace(cell, size={**cell.size, "processes": 1})
    here, one, cpu_us = findings.value(cell), findings.value(alone), findings.figure(alone, "cpu_us")
    if here is None or one is None or not cpu_us:
        return None
    return here.median / min(cell.size["processes"] * one.median, (os.cpu_count() or 1) * 1e6 / cpu_us)


def efficiency(findings: Findings, cell: Cell) -> float | None:
    """The reached share of the ideal rate, for the workloads that have one."""
    if cell.workload == "W16":
        return scaling(findings, cell)
    return waiting_efficiency(findings, cell) if cell.size.get("step_ms") else None


def _verdicts(findings: Findings) -> Iterator[Verdict]:
    for target in TARGETS:
        cells = findings.cells(target.workload, target.backend)
        if cells:
            meant = largest(target.workload, target.backend)
            note = "" if cells[-1].size == meant.size else f"at a smaller size: {_size_text(cells[-1])}"
            yield Verdict(target, target.measure(findings, cells[-1]), note)


def _size_text(cell: Cell) -> str:
    return ", ".join(f"{value:,} {name}" for name, value in cell.size.items())


def _over(contestant: str) -> Measure:
    def measure(findings: Findings, cell: Cell) -> float | None:
        found = findings.times_as_fast(cell, contestant)
        return found.median if found else None

    return measure


def _over_best_peer(findings: Findings, cell: Cell) -> float | None:
    found = findings.best_peer(cell)
    return found[1].median if found else None


def _value(findings: Findings, cell: Cell) -> float | None:
    found = findings.value(cell)
    return found.median if found else None


def _figure(name: str) -> Measure:
    return lambda findings, cell: findings.figure(cell, name)


def _against_smallest(findings: Findings, cell: Cell) -> float | None:
    """The rate divided by that of the smallest cell."""
    smallest = findings.cells(cell.workload, cell.backend)[0]
    here, there = findings.value(cell), findings.value(smallest)
    return here.median / there.median if here and there and cell != smallest else None


def _against_tenth(findings: Findings, cell: Cell) -> float | None:
    """The time divided by that of a tenth of the steps."""
    tenths = [each for each in findings.cells("W4", cell.backend) if each.size["steps"] * 10 == cell.size["steps"]]
    here, there = findings.value(cell), findings.value(tenths[0]) if tenths else None
    return here.median / there.median if here and there else None


def _bytes_over_payload(findings: Findings, cell: Cell) -> float | None:
    size = findings.figure(cell, "bytes")
    return size / cell.size["steps"] / cell.size["payload"] if size else None


def _least_ratio(cells_ratio: Callable[[Findings, Cell], Spread | None]) -> Measure:
    """The smallest median ratio of all cells of the workload on the backend."""

    def measure(findings: Findings, cell: Cell) -> float | None:
        found = [cells_ratio(findings, each) for each in findings.cells(cell.workload, cell.backend)]
        return min((each.median for each in found if each is not None), default=None)

    return measure


def _latency_ratio(findings: Findings, cell: Cell) -> float | None:
    p50, p95 = findings.figure(cell, "p50_ms"), findings.figure(cell, "p95_ms")
    return p95 / p50 if p50 and p95 else None


def _least_efficiency(findings: Findings, cell: Cell) -> float | None:
    cells = [each for each in findings.cells("W8", cell.backend) if each.size["step_ms"] >= 10]
    found = [value for each in cells if (value := waiting_efficiency(findings, each)) is not None]
    return min(found, default=None)


def _by_cpu(findings: Findings, cell: Cell) -> Spread | None:
    return findings.times_as_fast(cell, BEFORE)


def _by_wall(findings: Findings, cell: Cell) -> Spread | None:
    return findings.times_as_fast_by_wall(cell, BEFORE)


def _both(workload: str, text: str, bound: float, measure: Measure, *, is_least: bool = True) -> list[Target]:
    return [Target(workload, backend, text, bound, is_least, measure) for backend in SQL]


TARGETS = (
    Target("W1", "sqlite", "speed / raw insert and commit per step", 0.75, True, _over("raw step")),
    Target("W1", "postgres", "speed / raw autocommit insert per step", 0.6, True, _over("raw step")),
    *_both("W1", "speed / DBOS", 5, _over("DBOS")),
    *_both("W2", "speed / best peer", 20, _over_best_peer),
    *_both("W2", "items/s, most items / fewest", 0.8, _against_smallest),
    *_both("W2", "peak RSS, MB", 100, _figure("peak_rss_mb"), is_least=False),
    *_both("W3", "speed / DBOS", 50, _over("DBOS")),
    *_both("W3", "speed / LangGraph", 20, _over("LangGraph")),
    *_both("W3", "speed / best peer", 2, _over_best_peer),
    *_both("W3", "latency, p95 / p50", 2, _latency_ratio, is_least=False),
    *_both("W4", "time, N steps / N/10 steps", 11, _against_tenth, is_least=False),
    *_both("W4", "bytes per step / payload", 1.5, _bytes_over_payload, is_least=False),
    *_both("W4", "speed / best peer", 1, _over_best_peer),
    Target("W5", "none", "µs per step", 30, False, _value),
    Target("W5", "none", "speed / leanest peer", 1, True, _over_best_peer),
    Target("W6", "none", "speed / DBOS", 2, True, _over("DBOS")),
    Target("W6", "none", "databases, drivers, SDK loaded", 0, False, _figure("forbidden")),
    *_both("W7", "ms from resume to the first new step", 20, _value, is_least=False),
    *(Target("W8", backend, "least efficiency at 10 ms", 0.9, True, _least_efficiency) for backend in ("memory", *SQL)),
    *(
        Target("W9", backend, text, bound, False, _figure(name))
        for backend in ("memory", "none")
        for text, bound, name in (("RSS growth, MB", 30, "growth_mb"), ("items read ahead", 100, "read_ahead"))
    ),
    *_both("W10", "ms from enqueue to the first step, p50", 10, _value, is_least=False),
    *_both("W10", "ms from enqueue to the first step, p95", 30, _figure("p95_ms"), is_least=False),
    *_both("W10", "% of a core, idle worker", 2, _figure("idle_cpu"), is_least=False),
    *_both("W11", "speed / DBOS", 5, _over("DBOS")),
    Target("W11", "postgres", "speed / Procrastinate", 1, True, _over("Procrastinate")),
    Target("W11", "postgres", "speed / PgQueuer", 1, True, _over("PgQueuer")),
    *_both("W12", "RSS growth of the worker, MB", 20, _figure("growth_mb"), is_least=False),
    *_both("W12", "% of a core, idle worker", 2, _figure("idle_cpu"), is_least=False),
    *_both("W12", "ms from signal to the next step, p50", 20, _value, is_least=False),
    *_both("W13", "ms from emit to a follower in another process, p50", 15, _value, is_least=False),
    *_both("W13", "ms from emit to a follower in the same process, p50", 2, _figure("same_p50_ms"), is_least=False),
    *_both("W13", "emitted values stored per second", 10_000, _figure("stored_per_s")),
    *_both("W13", "% of a core that the followers cost the owner", 10, _figure("followers_cpu"), is_least=False),
    *(
        target
        for kind in ("list", "count", "checkpoint", "events")
        for target in _both("W15", f"ms of a query, {kind}, p50", 20, _figure(f"{kind}_p50_ms"), is_least=False)
    ),
    Target("W16", "postgres", "rate of 4 processes / ideal, map", 0.8, True, scaling),
    *_both("W14", "CPU time, before / now, least", 1 / 1.03, _least_ratio(_by_cpu)),
    *_both("W14", "wall time, before / now, least", 1 / 1.1, _least_ratio(_by_wall)),
)
