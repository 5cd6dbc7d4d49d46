"""Task and reading of a measuring process. Standard library only, because the environments of the peers import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Task:
    """One measurement to execute.

    Attributes:
        verb: Kind of work: `sequential`, `fan_out`, `many_runs`, `costs`, `prepare`, `resume`, `stream`, `pick_up`,
            `queued`, `parked`, `follow`, `look_up`, `scale_runs`, `scale_map` or `import_time`.
        backend: Storage of the runs: `sqlite`, `postgres`, `file`, `redis`, `memory`, or `none` without durability.
        place: Path of an SQLite file or of a folder, libpq URL of a PostgreSQL database, URL of a Redis server with a
            prefix, or empty.
        size: Sizes by name: `steps`, `items`, `runs`, `signals`, `values`, `concurrency`, `payload` (bytes), `step_ms`,
            `idle_ms`, `stored` (runs), `calls` (of each query), `processes`.
    """

    verb: str
    backend: str
    place: str
    size: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of a measurement.

    Attributes:
        seconds: Wall time of the measured part, without imports, connecting and the schema; of W10, W12, W13 the median
            latency, of W15 the longest median of a query.
        units: Number of executed steps, items or runs, or of sent signals.
        figures: Additional numbers by name, such as `p95_ms`, `peak_rss_mb`, `bytes`.
        versions: Versions of the measured packages.
    """

    seconds: float
    units: int
    figures: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
