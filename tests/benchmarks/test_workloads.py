"""Each workload runs once at a tiny size, as the command would; counts and shapes are looked at, never seconds."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from benchmarks import command, peers
from benchmarks.contestant import BEFORE, CONTESTANTS, OURS, Contestant
from benchmarks.measure import Measurement, measure
from benchmarks.place import Places
from benchmarks.plan import Cell, plan

LOCAL = [each for each in CONTESTANTS if not each.is_peer]
MATRIX = [
    (cell, each)
    for cell in plan("tiny")
    for each in LOCAL
    if each.can(cell.workload, cell.verb, cell.backend, cell.size)
]


def cases() -> list[ParameterSet]:
    """Each workload of this library once, and each backend; the other cells are `long`."""
    seen: set[tuple[str, ...]] = {()}
    found = []
    for cell, contestant in MATRIX:
        parts = {(cell.workload,) if contestant.name == OURS else (), (cell.backend,)}
        marks = [pytest.mark.long] if parts <= seen else []
        found.append(pytest.param(cell, contestant, id=f"{contestant.name}-{cell.key}", marks=marks))
        seen |= parts
    return found


def measured(cell: Cell, contestant: Contestant, places: Places) -> Measurement:
    found = measure(cell, contestant, places)
    assert found.error is None
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "contestant"), cases())
def test_it_does_what_it_is_asked(
    cell: Cell, contestant: Contestant, places: Places, request: pytest.FixtureRequest
) -> None:
    if cell.backend == "postgres":
        request.getfixturevalue("_services")
    found = measured(cell, contestant, places)
    assert found.value is not None
    assert found.reading is not None
    wanted = next((cell.size[name] for name in ("signals", "values", "runs", "items", "steps") if name in cell.size), 1)
    assert found.reading.units == (1 if cell.verb == "resume" else wanted)
    assert found.reading.figures["peak_rss_mb"] > 1


@pytest.mark.slow
def test_one_command_measures_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, drawn = tmp_path / "told.json", tmp_path / "drawn.svg"
    arguments = ["--scale", "tiny", "--repeat", "2", "--workloads", "W1,W6", "--backends", "sqlite"]
    assert command.main([*arguments, "--json", str(told), "--plot", str(drawn)]) == 0
    shown = capsys.readouterr().out
    assert "raw step" in shown
    assert "dbos: not requested; add --peers" in shown
    document = json.loads(told.read_text())
    assert {"machine", "versions", "commit", "missing", "cells", "targets", "measurements"} <= set(document)
    first = document["cells"][0]
    assert [row["contestant"] for row in first["rows"]] == [OURS, "raw step"]
    assert first["rows"][1]["ours_times_as_fast"].keys() == {"median", "low", "high"}
    assert ET.parse(drawn).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_another_checkout_without_the_library_is_an_error(places: Places, tmp_path: Path) -> None:
    (cell, *_) = plan("tiny", ("W14",), ("sqlite",))
    (before,) = (each for each in LOCAL if each.name == BEFORE)
    found = measure(cell, replace(before, arguments=(str(tmp_path),)), places)
    assert found.error == f"there is no spine_async in {tmp_path}"


def test_a_peer_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    assert peers.missing_reason("dbos") == "not installed; run nox -s bench_peers"
    (tmp_path / "dbos.missing").write_text("cannot be installed: no such thing")
    assert peers.missing_reason("dbos") == "cannot be installed: no such thing"
