"""Evaluates measurements: medians, spreads, and ratios of pairs within each repetition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contestant import CONTESTANTS, OURS
from benchmarks.measure import Measurement
from benchmarks.plan import Cell

PEERS = frozenset(each.name for each in CONTESTANTS if each.is_peer)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        return cls(median(numbers), min(numbers), max(numbers))

    @property
    def percent(self) -> float:
        """Difference of maximum and minimum in percent of the median."""
        return 100 * (self.high - self.low) / self.median if self.median else 0.0


class Findings:
    """Evaluations of measurements."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._by_key: dict[tuple[str, str], list[Measurement]] = {}
        self._cells: dict[str, Cell] = {}
        for each in measurements:
            self._cells[each.cell.key] = each.cell
            self._by_key.setdefault((each.cell.key, each.contestant), []).append(each)

    def cells(self, workload: str | None = None, backend: str | None = None) -> list[Cell]:
        """The cells, in the order of the plan."""
        return [
            cell
            for cell in self._cells.values()
            if workload in (None, cell.workload) and backend in (None, cell.backend)
        ]

    def contestants(self, cell: Cell) -> list[str]:
        """Names of the contestants of a cell: this library, then limits and peers."""
        names = [each.name for each in CONTESTANTS]
        return sorted((name for key, name in self._by_key if key == cell.key), key=names.index)

    def value(self, cell: Cell, contestant: str = OURS) -> Spread | None:
        """The contestant's values in the cell's unit."""
        return self._spread(cell, contestant, lambda each: each.value)

    def figure(self, cell: Cell, name: str, contestant: str = OURS) -> float | None:
        """Median of one of the additional figures."""
        found = self._spread(cell, contestant, lambda each: each.reading.figures.get(name) if each.reading else None)
        return found.median if found else None

    def figure_names(self, cell: Cell, contestant: str = OURS) -> set[str]:
        """Names of the additional figures."""
        found = self._by_key.get((cell.key, contestant), ())
        return {name for each in found if each.reading for name in each.reading.figures}

    def times_as_fast(self, cell: Cell, contestant: str) -> Spread | None:
        """Ratio of the speed of this library to the contestant's, per pair; below 1 if this library is slower."""
        ratios = _ratios(self._values(cell, OURS), self._values(cell, contestant))
        return Spread.of(ratios if cell.is_rate else [1 / each for each in ratios]) if ratios else None

    def times_as_fast_by_wall(self, cell: Cell, contestant: str) -> Spread | None:
        """The same for the wall time of a cell whose values are processor time."""
        ratios = _ratios(self._seconds(cell, contestant), self._seconds(cell, OURS))
        return Spread.of(ratios) if ratios else None

    def best_peer(self, cell: Cell) -> tuple[str, Spread] | None:
        """The fastest peer, and the ratio of the speed of this library to it."""
        ratios = {name: self.times_as_fast(cell, name) for name in self.contestants(cell) if name in PEERS}
        found = {name: ratio for name, ratio in ratios.items() if ratio is not None}
        return min(found.items(), key=lambda each: each[1].median) if found else None

    def error(self, cell: Cell, contestant: str) -> str | None:
        """Why a value is missing, or None if it is not."""
        return next((each.error for each in self._by_key.get((cell.key, contestant), ()) if each.error), None)

    def versions(self) -> dict[str, str]:
        """Package versions that the measuring processes reported."""
        readings = (each.reading for found in self._by_key.values() for each in found if each.reading)
        return {name: version for reading in readings for name, version in reading.versions.items()}

    def _values(self, cell: Cell, contestant: str) -> dict[int, float]:
        found = self._by_key.get((cell.key, contestant), ())
        return {each.repetition: each.value for each in found if each.value}

    def _seconds(self, cell: Cell, contestant: str) -> dict[int, float]:
        found = self._by_key.get((cell.key, contestant), ())
        return {each.repetition: each.reading.seconds for each in found if each.reading}

    def _spread(self, cell: Cell, contestant: str, take: Callable[[Measurement], float | None]) -> Spread | None:
        found = [take(each) for each in self._by_key.get((cell.key, contestant), ())]
        numbers = [number for number in found if number is not None]
        return Spread.of(numbers) if numbers else None


def _ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Our number divided by theirs, for each repetition that has both."""
    return [ours[number] / theirs[number] for number in ours if number in theirs]
