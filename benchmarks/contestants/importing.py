"""How long an import takes in a fresh interpreter, and what it loads: `python -m … JSON` with the module as place."""

import sys
import time

FORBIDDEN = ("sqlalchemy", "aiosqlite", "asyncpg", "psycopg", "psycopg2", "redis", "opentelemetry.sdk")
"""What `import spine_async` must not load: databases and their drivers, and the SDK of OpenTelemetry."""


def main() -> None:
    """Import first, and only then what the answer needs, so that nothing is there already that costs time."""
    name = sys.argv[2]
    before = len(sys.modules)
    began = time.perf_counter()
    __import__(name)
    seconds = time.perf_counter() - began
    loaded = [each for each in FORBIDDEN if each in sys.modules]
    figures = {"modules": len(sys.modules) - before, "forbidden": len(loaded)}

    from benchmarks.child import tell  # noqa: PLC0415 - see above
    from benchmarks.task import Reading  # noqa: PLC0415 - see above

    tell(Reading(seconds, 1, figures, {}))


if __name__ == "__main__":
    main()
