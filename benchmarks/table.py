"""The findings as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.contestant import OURS
from benchmarks.findings import Findings, Spread
from benchmarks.plan import WORKLOADS, Cell
from benchmarks.target import Verdict, efficiency, evaluate

_WIDTHS = (20, 11, 9, 8, 24, 9)
_HEAD = ("", "median", "unit", "spread", "ours is … × as fast", "peak MB")
_FURTHER = {
    "p50_ms": "p50 {} ms",
    "p95_ms": "p95 {} ms",
    "entering_ms": "{} ms to connect before",
    "second_ms": "{} ms the second",
    "modules": "{} modules",
    "growth_mb": "grows by {} MB",
    "read_ahead": "{} read ahead",
    "result_p50_ms": "p50 {} ms until the result is known",
    "result_p95_ms": "p95 {} ms",
    "same_p50_ms": "p50 {} ms in the same process",
    "same_p95_ms": "p95 {} ms",
    "stored_per_s": "{} values stored per s",
    "followers_cpu": "followers cost the owner {} % of a core",
    "owner_cpu": "which uses {} % without them",
    "idle_cpu": "{} % of a core when idle",
}

_LOAD = {
    "cpu_us": "{} CPU µs each",
    "server_cpu_us": "of them {} of the server",
    "wal_bytes": "{} WAL bytes each",
    "connections": "{} connections",
    "active": "{} active backends",
}
_WAITS_SHOWN = 4


def render(findings: Findings, missing: Mapping[str, str]) -> str:
    """All cells, missing peers, and the targets."""
    parts = [*_workloads(findings), *_missing(missing), *_targets(evaluate(findings))]
    return "\n".join(parts)


def number(value: float) -> str:
    """A number with three significant digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}" if value >= 1 else f"{value:.3g}"


def _workloads(findings: Findings) -> Iterator[str]:
    for workload, title in WORKLOADS.items():
        cells = findings.cells(workload)
        if cells:
            yield f"\n{workload} {title}"
            yield _line(_HEAD)
        for cell in cells:
            yield from _cell(findings, cell)


def _cell(findings: Findings, cell: Cell) -> Iterator[str]:
    sizes = ", ".join(f"{value:,} {name}" for name, value in cell.size.items())
    found = efficiency(findings, cell)
    yield f" {cell.backend}: {sizes}" + (f"; efficiency {found:.2f}" if found is not None else "")
    for name in findings.contestants(cell):
        yield _row(findings, cell, name)


def _row(findings: Findings, cell: Cell, name: str) -> str:
    value = findings.value(cell, name)
    if value is None:
        return f"   {name:<16}failed: {findings.error(cell, name)}"
    ratio = findings.times_as_fast(cell, name) if name != OURS else None
    memory = findings.figure(cell, "peak_rss_mb", name)
    line = _line(
        (
            f"   {name}",
            number(value.median),
            cell.unit,
            f"{value.percent:.0f} %",
            _ratio(ratio) if ratio else "",
            f"{memory:.0f}" if memory else "",
        )
    )
    return "   ".join([line, *_further(findings, cell, name)])


def _further(findings: Findings, cell: Cell, name: str) -> Iterator[str]:
    size = findings.figure(cell, "bytes", name)
    if size and cell.workload == "W4":
        yield f"{number(size / cell.size['steps'])} bytes/step"
    wall = findings.times_as_fast_by_wall(cell, name) if cell.workload == "W14" and name != OURS else None
    if wall is not None:
        yield f"wall time: {_ratio(wall)}"
    if cell.workload == "W16":
        yield from _load(findings, cell)
    for figure, template in _FURTHER.items():
        value = findings.figure(cell, figure, name)
        if value is not None:
            yield template.format(number(value))


def _load(findings: Findings, cell: Cell) -> Iterator[str]:
    """Processor time, and what the server did."""
    for figure, template in _LOAD.items():
        value = findings.figure(cell, figure)
        if value is not None:
            yield template.format(number(value))
    waits = {name: findings.figure(cell, name) or 0 for name in findings.figure_names(cell) if name.startswith("wait:")}
    shown = sorted(waits.items(), key=lambda each: -each[1])[:_WAITS_SHOWN]
    if shown:
        yield "of which " + ", ".join(f"{number(share)} % {name.removeprefix('wait:')}" for name, share in shown)


def _ratio(ratio: Spread) -> str:
    return f"{number(ratio.median)} ({number(ratio.low)}–{number(ratio.high)})"


def _missing(missing: Mapping[str, str]) -> Iterator[str]:
    if missing:
        yield "\nMissing"
    for peer, reason in missing.items():
        yield f"   {peer}: {reason}"


def _targets(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "\nTargets"
    yield f"   {'':<3} {'':<9}{'what':<42}{'target':>9}{'reached':>10}"
    for each in verdicts:
        target, reached = each.target, each.reached
        bound = ("≥ " if target.is_least else "≤ ") + number(target.bound)
        answer = {True: "yes", False: "NO", None: "not measured"}[each.is_good]
        shown = number(reached) if reached is not None else "–"
        line = f"   {target.workload} {target.backend:<9}{target.text:<42}{bound:>9}{shown:>10}  {answer}"
        yield line + (f"  ({each.note})" if each.note else "")


def _line(values: Sequence[str]) -> str:
    first, *others = zip(values, _WIDTHS, strict=True)
    return f"{first[0]:<{first[1]}}" + "".join(f"{value:>{width}}" for value, width in others)
