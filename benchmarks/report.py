"""The findings as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from benchmarks import machine
from benchmarks.findings import Findings
from benchmarks.measure import Measurement
from benchmarks.target import Verdict, efficiency, evaluate


def document(
    measurements: Sequence[Measurement], *, scale: str, missing: Mapping[str, str], postgres: str | None
) -> dict[str, object]:
    """All results: machine, versions, commit, measurements, medians, ratios and verdicts.

    Returns:
        `{"format": 1, "made_at", "scale", "commit", "machine", "versions", "missing": {peer: reason}, "cells": [...],
        "targets": [...], "measurements": [...]}`.
    """
    findings = Findings(measurements)
    server = {"postgresql": postgres} if postgres else {}
    return {
        "format": 1,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "scale": scale,
        "commit": machine.commit(),
        "machine": machine.machine(),
        "versions": {**machine.versions(), **server, **findings.versions()},
        "missing": dict(missing),
        "cells": [_cell_rows(findings, index) for index in range(len(findings.cells()))],
        "targets": [_verdict(each) for each in evaluate(findings)],
        "measurements": [_measurement(each) for each in measurements],
    }


def _cell_rows(findings: Findings, index: int) -> dict[str, object]:
    cell = findings.cells()[index]
    rows = []
    for name in findings.contestants(cell):
        value, ratio = findings.value(cell, name), findings.times_as_fast(cell, name)
        rows.append(
            {
                "contestant": name,
                "value": asdict(value) if value else None,
                "ours_times_as_fast": asdict(ratio) if ratio else None,
                "peak_rss_mb": findings.figure(cell, "peak_rss_mb", name),
                "error": findings.error(cell, name),
            }
        )
    share = efficiency(findings, cell)
    found = {"efficiency": share} if share is not None else {}
    return {"key": cell.key, **_plain(asdict(cell)), **found, "rows": rows}


def _verdict(verdict: Verdict) -> dict[str, object]:
    target = verdict.target
    return {
        "workload": target.workload,
        "backend": target.backend,
        "text": target.text,
        "bound": target.bound,
        "is_least": target.is_least,
        "reached": verdict.reached,
        "is_good": verdict.is_good,
        "note": verdict.note,
    }


def _measurement(measurement: Measurement) -> dict[str, object]:
    return {**_plain(asdict(measurement)), "cell": measurement.cell.key}


def _plain(found: dict[str, object]) -> dict[str, object]:
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}
