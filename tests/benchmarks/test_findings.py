"""Ratios, spreads and verdicts from made-up measurements."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from benchmarks.contestant import BEFORE, OURS
from benchmarks.findings import Findings, Spread
from benchmarks.measure import Measurement
from benchmarks.plan import WORKLOADS, Cell, largest, plan
from benchmarks.plot import draw
from benchmarks.table import number, render
from benchmarks.target import TARGETS, efficiency, evaluate
from benchmarks.task import Reading

W1 = largest("W1", "sqlite")
SMALLER = Cell("W1", "sequential", "sqlite", {"steps": 5}, "steps/s")
W4 = largest("W4", "sqlite")


def measured(cell: Cell, contestant: str, values: list[float], **figures: float) -> list[Measurement]:
    readings = Reading(1.0, 1, figures)
    return [Measurement(cell, contestant, number, value, readings) for number, value in enumerate(values)]


def test_ratios_are_formed_pair_by_pair() -> None:
    findings = Findings([*measured(W1, OURS, [100, 10, 50]), *measured(W1, "raw step", [50, 10, 200])])
    assert findings.times_as_fast(W1, "raw step") == Spread(1, 0.25, 2)


def test_where_less_is_better_ours_is_faster_with_less() -> None:
    findings = Findings([*measured(W4, OURS, [2.0]), *measured(W4, "DBOS", [8.0])])
    ratio = findings.times_as_fast(W4, "DBOS")
    assert ratio is not None
    assert ratio.median == 4


def test_the_best_peer_is_the_one_nearest_to_ours_and_no_limit() -> None:
    values = {OURS: [100.0], "raw step": [900.0], "DBOS": [10.0], "Burr": [50.0]}
    findings = Findings([each for name, found in values.items() for each in measured(W1, name, found)])
    assert findings.best_peer(W1) == ("Burr", Spread(2, 2, 2))


def test_the_spread_is_given_in_percent_of_the_median() -> None:
    assert Spread.of([90, 100, 120]).percent == pytest.approx(30)


@pytest.mark.parametrize(("ours", "is_good"), [(75.0, True), (74.0, False)])
def test_a_target_is_reached_or_not(ours: float, is_good: bool) -> None:
    findings = Findings([*measured(W1, OURS, [ours]), *measured(W1, "raw step", [100.0])])
    verdict = evaluate(findings)[0]
    assert (verdict.is_good, verdict.note) == (is_good, "")


def test_a_target_at_a_smaller_size_says_so() -> None:
    findings = Findings([*measured(SMALLER, OURS, [75.0]), *measured(SMALLER, "raw step", [100.0])])
    assert evaluate(findings)[0].note == "at a smaller size: 5 steps"


def test_a_peer_that_was_not_measured_leaves_its_target_open() -> None:
    verdicts = evaluate(Findings(measured(W1, OURS, [1.0])))
    assert {each.is_good for each in verdicts} == {None}


@pytest.mark.parametrize(("cpu_us", "share"), [(500.0, 0.75), (10_000.0, 1.5)])
def test_the_rate_of_many_processes_is_compared_with_what_the_cores_allow(
    cpu_us: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    alone, four = (Cell("W16", "scale_runs", "postgres", {"runs": 10, "processes": n}, "runs/s") for n in (1, 4))
    findings = Findings([*measured(alone, OURS, [100.0], cpu_us=cpu_us), *measured(four, OURS, [300.0])])
    assert efficiency(findings, four) == pytest.approx(share)
    assert f"efficiency {share}" in render(findings, {})


def test_bytes_are_compared_with_the_payload() -> None:
    findings = Findings(measured(W4, OURS, [1.0], bytes=3000 * 1024 * 1.25))
    (verdict,) = (each for each in evaluate(findings) if each.target.text == "bytes per step / payload")
    assert verdict.reached == pytest.approx(1.25)


def test_processor_time_and_wall_time_are_compared_with_the_other_version() -> None:
    cell = largest("W14", "sqlite")
    slower, faster = Reading(2.0, 1), Reading(1.0, 1)
    findings = Findings(
        [Measurement(cell, OURS, 0, 110.0, slower), Measurement(cell, BEFORE, 0, 100.0, faster)],
    )
    reached = [each.reached for each in evaluate(findings)]
    assert reached == [pytest.approx(100 / 110), 0.5]
    assert "wall time: 0.5 (0.5–0.5)" in render(findings, {})


def test_the_table_names_who_is_missing_and_who_failed() -> None:
    failed = Measurement(W1, "DBOS", 0, None, error="no such table")
    shown = render(Findings([*measured(W1, OURS, [1234.0]), failed]), {"absurd": "cannot be installed: gone"})
    assert "failed: no such table" in shown
    assert "absurd: cannot be installed: gone" in shown
    assert "1,234" in shown


def test_the_picture_has_a_curve_for_each_step_time() -> None:
    cells = [cell for cell in plan("small", ("W8",)) if cell.backend == "memory"]
    drawn = ET.fromstring(draw(Findings([each for cell in cells for each in measured(cell, OURS, [1000.0])])))
    assert len(drawn.findall("{*}polyline")) == 3


def test_every_workload_has_targets() -> None:
    assert {each.workload for each in TARGETS} == set(WORKLOADS)


@pytest.mark.parametrize(
    ("value", "shown"), [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (0.01234, "0.0123")]
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown
