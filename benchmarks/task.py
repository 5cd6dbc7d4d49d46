"""What a measuring process is asked, and what it answers. Standard library only: peers' environments read it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to measure.

    Attributes:
        verb: What to do: `sequential`, `fan_out`, `many_runs`, `prepare`, `resume`, `stream` or `import_time`.
        backend: Where to keep runs: `sqlite`, `postgres`, `memory`, or `none` where nothing is durable.
        place: Path of an SQLite file, libpq URL of a PostgreSQL database, or empty.
        size: How much of it, by name: `steps`, `items`, `runs`, `concurrency`, `payload` (bytes), `step_ms`.
    """

    verb: str
    backend: str
    place: str
    size: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was measured.

    Attributes:
        seconds: Wall time of the measured part, without imports, connecting and the schema.
        units: How many steps, items or runs were done in it.
        figures: Further numbers by name, such as `p95_ms`, `peak_rss_mb`, `bytes`.
        versions: Versions of the packages that did it.
    """

    seconds: float
    units: int
    figures: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
