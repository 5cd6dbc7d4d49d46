"""Draws the findings as an SVG chart, without dependencies.

Bars for each workload and backend on a logarithmic scale (longer is better), and curves for the scaling of maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.contestant import OURS
from benchmarks.findings import PEERS, Findings
from benchmarks.plan import WORKLOADS, Cell
from benchmarks.table import number

_WIDTH = 760
_LABEL, _BAR = 150, 460
_ROW, _GAP = 18, 34
_COLOURS = {"ours": "#0b6e4f", "limit": "#9aa5b1", "peer": "#c8763b"}
_CURVES = ("#0b6e4f", "#2f6fb2", "#c8763b", "#8a4f9e")


def draw(findings: Findings) -> str:
    """The whole chart as SVG text."""
    parts: list[str] = []
    top = 10.0
    for cell in _barred(findings):
        parts += _bars(findings, cell, top)
        top += _GAP + _ROW * len(findings.contestants(cell))
    for backend in ("memory", "sqlite", "postgres"):
        curves = list(_curves(findings, backend))
        if curves:
            parts += _chart(curves, backend, top)
            top += 280
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top:.0f}" font-family="sans-serif" '
    return "\n".join([head + 'font-size="12"><rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>"])


def _barred(findings: Findings) -> Iterator[Cell]:
    """The largest cell of each workload and backend; W8 has curves instead."""
    last = {(cell.workload, cell.backend): cell for cell in findings.cells()}
    yield from (cell for cell in last.values() if cell.workload != "W8")


def _bars(findings: Findings, cell: Cell, top: float) -> Iterator[str]:
    speeds = {name: _speed(findings, cell, name) for name in findings.contestants(cell)}
    known = [speed for speed in speeds.values() if speed]
    low, high = min(known, default=1) / 2, max(known, default=2)
    sizes = ", ".join(f"{value:,} {name}" for name, value in cell.size.items())
    title = f"{cell.workload} {WORKLOADS[cell.workload]} – {cell.backend} {sizes} – {cell.unit}"
    yield f'<text x="10" y="{top + 14:.0f}" font-weight="bold">{escape(title)}</text>'
    for row, (name, speed) in enumerate(speeds.items()):
        y = top + 22 + row * _ROW
        yield f'<text x="{_LABEL - 6}" y="{y + 11:.0f}" text-anchor="end">{escape(name)}</text>'
        width = _BAR * math.log(speed / low) / math.log(high / low) if speed and high > low else 0
        yield f'<rect x="{_LABEL}" y="{y:.0f}" width="{width:.0f}" height="13" fill="{_colour(name)}"/>'
        yield f'<text x="{_LABEL + width + 5:.0f}" y="{y + 11:.0f}">{_shown(findings, cell, name)}</text>'


def _speed(findings: Findings, cell: Cell, name: str) -> float:
    found = findings.value(cell, name)
    if not found or not found.median:
        return 0
    return found.median if cell.is_rate else 1 / found.median


def _shown(findings: Findings, cell: Cell, name: str) -> str:
    found = findings.value(cell, name)
    return number(found.median) if found else "failed"


def _colour(name: str) -> str:
    return _COLOURS["ours" if name == OURS else "peer" if name in PEERS else "limit"]


Curve = tuple[str, list[tuple[float, float]]]


def _curves(findings: Findings, backend: str) -> Iterator[Curve]:
    """Items a second by concurrency, a curve for each step time; of several numbers of items the last one counts."""
    cells = findings.cells("W8", backend)
    for step_ms in sorted({cell.size["step_ms"] for cell in cells}):
        points = {
            cell.size["concurrency"]: found.median
            for cell in cells
            if cell.size["step_ms"] == step_ms and (found := findings.value(cell))
        }
        if points:
            yield f"steps of {step_ms} ms", sorted(points.items())


def _chart(curves: Sequence[Curve], backend: str, top: float) -> Iterator[str]:
    xs = [math.log10(x) for _, points in curves for x, _ in points]
    ys = [math.log10(y) for _, points in curves for _, y in points]
    left, right, base, height = 70, 560, top + 240, 200
    across, down = (right - left) / (max(xs) - min(xs) or 1), height / (max(ys) - min(ys) or 1)
    yield f'<text x="10" y="{top + 14:.0f}" font-weight="bold">W8 items/s by concurrency – {backend}</text>'
    yield f'<path d="M{left} {base - height - 10:.0f}V{base + 8:.0f}H{right}" fill="none" stroke="#888"/>'
    for value in sorted({10**x for x in xs}):
        x = left + (math.log10(value) - min(xs)) * across
        yield f'<text x="{x:.0f}" y="{base + 24:.0f}" text-anchor="middle">{value:,.0f}</text>'
    for y, value in ((base, min(ys)), (base - height, max(ys))):
        yield f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{number(10**value)}</text>'
    for row, ((name, points), colour) in enumerate(zip(curves, _CURVES, strict=False)):
        places = [
            (left + (math.log10(x) - min(xs)) * across, base - (math.log10(y) - min(ys)) * down) for x, y in points
        ]
        yield f'<polyline points="{_joined(places)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3" fill="{colour}"/>' for x, y in places)
        label = f"{name}: {number(points[0][1])} to {number(points[-1][1])}"
        yield f'<text x="{right + 12}" y="{base - 60 + 18 * row:.0f}" fill="{colour}">{escape(label)}</text>'


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
