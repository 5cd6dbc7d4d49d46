"""The plan of measurements: each workload at each scale as cells of one size on one backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

WORKLOADS = {
    "W1": "one run of sequential steps",
    "W2": "one map, each item durable",
    "W3": "many runs started together",
    "W4": "sequential steps of 1 KB output",
    "W5": "steps without durability",
    "W6": "import",
    "W7": "a new process resumes a run",
    "W8": "concurrent map steps",
    "W9": "a map over an async generator, results not collected",
    "W10": "an enqueued run, executed by an idle worker process",
    "W11": "many enqueued runs of one step, executed by two worker processes",
    "W12": "many parked runs, and a signal to one of them",
    "W13": "events that a running step emits, and their followers",
    "W14": "processor time of W1 to W3, compared with another version",
    "W15": "queries among many stored runs",
    "W16": "queued runs of five steps, and a map of queued children, on several processes",
}

SCALES = ("tiny", "small", "full")
SQL = ("sqlite", "postgres")
STORES = (*SQL, "file", "redis")


@dataclass(frozen=True, slots=True)
class Cell:
    """One workload at one size on one backend.

    Attributes:
        unit: Unit of the result: `steps/s`, `items/s`, `runs/s` (higher is better), `s`, `ms`, `µs/step`,
            `CPU µs` per step, item or run (lower is).
    """

    workload: str
    verb: str
    backend: str
    size: Mapping[str, int]
    unit: str

    @property
    def key(self) -> str:
        sizes = ",".join(f"{name}={value}" for name, value in self.size.items())
        return f"{self.workload}/{self.backend}/{sizes}"

    @property
    def is_rate(self) -> bool:
        return self.unit.endswith("/s")


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of one scale. The targets apply to the sizes of `full`."""

    w1: int
    w2: tuple[int, ...]
    w2_concurrency: int
    w3: tuple[int, int]
    w4: tuple[int, ...]
    w5: int
    w7: int
    w8_items: tuple[int, ...]
    w8_concurrency: tuple[int, ...]
    w8_step_ms: tuple[int, ...]
    w8_longest: float
    w9: int
    w10: tuple[int, int]
    w11: int
    w12: tuple[int, int, int]
    w13: tuple[int, int, int]
    w14: tuple[int, int, tuple[int, int]]
    w15: tuple[int, int]
    w16: tuple[tuple[int, ...], int, int]


_SIZES = {
    "tiny": Scale(
        5,
        (20, 40),
        10,
        (4, 2),
        (2, 20),
        20,
        5,
        (20,),
        (1, 10),
        (0,),
        1,
        200,
        (3, 100),
        20,
        (40, 4, 100),
        (10, 50, 3),
        (5, 20, (4, 2)),
        (400, 3),
        ((2,), 20, 8),
    ),
    "small": Scale(
        100,
        (1000,),
        100,
        (100, 5),
        (100, 1000),
        2000,
        1000,
        (1000, 10_000),
        (1, 10, 100, 1000),
        (0, 1, 10),
        2,
        100_000,
        (100, 3000),
        1000,
        (5000, 50, 3000),
        (200, 20_000, 100),
        (300, 2000, (200, 5)),
        (50_000, 20),
        ((1, 2, 4), 1000, 300),
    ),
    "full": Scale(
        100,
        (1000, 10_000),
        100,
        (500, 5),
        (100, 300, 1000, 3000),
        10_000,
        1000,
        (1000, 10_000, 100_000),
        (1, 10, 100, 1000),
        (0, 1, 10),
        100,
        1_000_000,
        (200, 10_000),
        5000,
        (100_000, 200, 10_000),
        (1000, 100_000, 100),
        (1000, 10_000, (500, 5)),
        (1_000_000, 50),
        ((1, 2, 4), 20_000, 2000),
    ),
}

_SLOWEST = {"memory": 0.0002, "sqlite": 0.001, "postgres": 0.001}  # upper estimate of the seconds per item


def plan(scale: str, workloads: tuple[str, ...] = tuple(WORKLOADS), backends: tuple[str, ...] = STORES) -> list[Cell]:
    """The cells of these workloads."""
    sizes = _SIZES[scale]
    return [
        cell
        for name in workloads
        for cell in _BUILDERS[name](sizes)
        if cell.backend in backends or cell.backend not in STORES
    ]


def largest(workload: str, backend: str) -> Cell:
    """The largest cell of the full scale, to which the targets of the workload apply."""
    return next(cell for cell in reversed(plan("full", (workload,))) if cell.backend == backend)


def ideal_seconds(cell: Cell) -> float:
    """Duration of a cell in seconds if the items only wait, without overhead."""
    rounds = -(-cell.size["items"] // cell.size["concurrency"])
    return rounds * cell.size["step_ms"] / 1000


def _w1(sizes: Scale) -> Iterator[Cell]:
    for backend in STORES:
        yield Cell("W1", "sequential", backend, {"steps": sizes.w1}, "steps/s")


def _w2(sizes: Scale) -> Iterator[Cell]:
    for backend, items in product(STORES, sizes.w2):
        yield Cell("W2", "fan_out", backend, {"items": items, "concurrency": sizes.w2_concurrency}, "items/s")


def _w3(sizes: Scale) -> Iterator[Cell]:
    runs, steps = sizes.w3
    for backend in STORES:
        yield Cell("W3", "many_runs", backend, {"runs": runs, "steps": steps}, "runs/s")


def _w4(sizes: Scale) -> Iterator[Cell]:
    for backend, steps in product(SQL, sizes.w4):
        yield Cell("W4", "sequential", backend, {"steps": steps, "payload": 1024}, "s")


def _w5(sizes: Scale) -> Iterator[Cell]:
    yield Cell("W5", "sequential", "none", {"steps": sizes.w5}, "µs/step")


def _w6(sizes: Scale) -> Iterator[Cell]:
    yield Cell("W6", "import_time", "none", {}, "ms")


def _w7(sizes: Scale) -> Iterator[Cell]:
    for backend in SQL:
        yield Cell("W7", "resume", backend, {"steps": sizes.w7}, "ms")


def _w8(sizes: Scale) -> Iterator[Cell]:
    grid = product(("memory", *SQL), sizes.w8_step_ms, sizes.w8_concurrency, sizes.w8_items)
    for backend, step_ms, concurrency, items in grid:
        size = {"items": items, "concurrency": concurrency, "step_ms": step_ms}
        cell = Cell("W8", "fan_out", backend, size, "items/s")
        alone = _SLOWEST[backend] * items / min(concurrency, 10)
        if ideal_seconds(cell) + alone <= sizes.w8_longest:
            yield cell


def _w9(sizes: Scale) -> Iterator[Cell]:
    for backend in ("memory", "none"):
        yield Cell("W9", "stream", backend, {"items": sizes.w9, "concurrency": 100}, "items/s")


def _w10(sizes: Scale) -> Iterator[Cell]:
    runs, idle_ms = sizes.w10
    for backend in SQL:
        yield Cell("W10", "pick_up", backend, {"runs": runs, "idle_ms": idle_ms}, "ms")


def _w11(sizes: Scale) -> Iterator[Cell]:
    for backend in SQL:
        yield Cell("W11", "queued", backend, {"runs": sizes.w11}, "runs/s")


def _w12(sizes: Scale) -> Iterator[Cell]:
    runs, signals, idle_ms = sizes.w12
    for backend in SQL:
        yield Cell("W12", "parked", backend, {"runs": runs, "signals": signals, "idle_ms": idle_ms}, "ms")


def _w13(sizes: Scale) -> Iterator[Cell]:
    values, emitted, followers = sizes.w13
    for backend in SQL:
        yield Cell("W13", "follow", backend, {"values": values, "emitted": emitted, "followers": followers}, "ms")


def _w14(sizes: Scale) -> Iterator[Cell]:
    steps, items, (runs, steps_each) = sizes.w14
    for backend in SQL:
        yield Cell("W14", "costs", backend, {"steps": steps}, "CPU µs")
        yield Cell("W14", "costs", backend, {"items": items, "concurrency": sizes.w2_concurrency}, "CPU µs")
        yield Cell("W14", "costs", backend, {"runs": runs, "steps": steps_each}, "CPU µs")


def _w15(sizes: Scale) -> Iterator[Cell]:
    stored, calls = sizes.w15
    for backend in SQL:
        yield Cell("W15", "look_up", backend, {"stored": stored, "calls": calls}, "ms")


def _w16(sizes: Scale) -> Iterator[Cell]:
    processes, runs, items = sizes.w16
    for backend, count in product(SQL, processes):
        yield Cell("W16", "scale_runs", backend, {"runs": runs, "processes": count}, "runs/s")
    for count in processes:
        yield Cell("W16", "scale_map", "postgres", {"items": items, "processes": count}, "items/s")


_BUILDERS: Mapping[str, Callable[[Scale], Iterator[Cell]]] = {
    "W1": _w1,
    "W2": _w2,
    "W3": _w3,
    "W4": _w4,
    "W5": _w5,
    "W6": _w6,
    "W7": _w7,
    "W8": _w8,
    "W9": _w9,
    "W10": _w10,
    "W11": _w11,
    "W12": _w12,
    "W13": _w13,
    "W14": _w14,
    "W15": _w15,
    "W16": _w16,
}
