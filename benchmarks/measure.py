"""Runs measuring processes, interleaved: each repetition measures all contestants, every other one in reverse order."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import peers
from benchmarks.child import MARK
from benchmarks.contestant import Contestant
from benchmarks.place import Place, Places
from benchmarks.plan import Cell
from benchmarks.task import Reading, Task

TIMEOUT = 600.0  # seconds


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of one contestant in one cell and repetition.

    Attributes:
        value: Result in the unit of the cell, or None if the measurement failed.
        error: Why the measurement failed, or None.
    """

    cell: Cell
    contestant: str
    repetition: int
    value: float | None
    reading: Reading | None = None
    error: str | None = None


def measure_all(
    cells: Sequence[Cell], contestants: Sequence[Contestant], places: Places, repetitions: int
) -> Iterator[Measurement]:
    """Measure each cell with all contestants that support it, `repetitions` times."""
    _compile_sources()
    for repetition in range(repetitions):
        for cell in cells:
            for contestant in _order(_able(cell, contestants), repetition):
                yield measure(cell, contestant, places, repetition)


def measure(cell: Cell, contestant: Contestant, places: Places, repetition: int = 0) -> Measurement:
    """Measure one contestant once, on an empty database, in a process of its own."""
    with places.fresh(cell.backend) as place:
        try:
            reading = _read(cell, contestant, place)
        except (ChildError, subprocess.TimeoutExpired) as exc:
            return Measurement(cell, contestant.name, repetition, None, error=str(exc))
    return Measurement(cell, contestant.name, repetition, _value(cell, reading), reading)


def _compile_sources() -> None:
    """Compile our modules to bytecode, as an installation does; W6 and W7 import them in new processes."""
    for package in ("benchmarks", "spine_async"):
        compileall.compile_dir(peers.ROOT / package, quiet=1)


class ChildError(Exception):
    """A measuring process ended without a reading."""


def _able(cell: Cell, contestants: Sequence[Contestant]) -> list[Contestant]:
    return [each for each in contestants if each.can(cell.workload, cell.verb, cell.backend, cell.size)]


def _order(contestants: list[Contestant], repetition: int) -> Iterator[Contestant]:
    return reversed(contestants) if repetition % 2 else iter(contestants)


def _read(cell: Cell, contestant: Contestant, place: Place) -> Reading:
    task = Task(cell.verb, cell.backend, place.name, cell.size)
    if cell.verb == "import_time":
        return _ask(contestant, "importing", task, contestant.imported or "")
    if cell.verb == "resume":
        _ask(contestant, contestant.module, replace(task, verb="prepare"))
    reading = _ask(contestant, contestant.module_of(cell.verb), task, *contestant.arguments)
    return replace(reading, figures={**reading.figures, "bytes": place.size()})


def _ask(contestant: Contestant, module: str, task: Task, *arguments: str) -> Reading:
    command = [str(contestant.python), "-m", f"benchmarks.contestants.{module}", json.dumps(asdict(task)), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(peers.ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT, cwd=peers.ROOT, env=environment
    )
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            return Reading(**json.loads(line.removeprefix(MARK)))
    raise ChildError((done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1])


def _value(cell: Cell, reading: Reading) -> float:
    if cell.is_rate:
        return reading.units / reading.seconds
    if cell.unit == "CPU µs":
        return reading.figures["cpu_us"]
    scale = {"s": 1, "ms": 1e3, "µs/step": 1e6 / reading.units}
    return reading.seconds * scale[cell.unit]


def folder() -> Path:
    """Folder of SQLite files: in the source tree, because /tmp may be in memory."""
    return peers.ROOT / ".spine"
