"""Measures the import of a module in a new interpreter: `python -m benchmarks.contestants.importing TASK MODULE`."""

import sys
import time

FORBIDDEN = ("sqlalchemy", "aiosqlite", "asyncpg", "psycopg", "psycopg2", "redis", "opentelemetry.sdk")
"""Modules that `import spine_async` must not load: databases, drivers, and the SDK of OpenTelemetry."""


def main() -> None:
    """Import the module before the modules that print the reading, so that none of its imports is loaded already."""
    name = sys.argv[2]
    before = len(sys.modules)
    began = time.perf_counter()
    __import__(name)
    seconds = time.perf_counter() - began
    loaded = [each for each in FORBIDDEN if each in sys.modules]
    figures = {"modules": len(sys.modules) - before, "forbidden": len(loaded)}

    from benchmarks.child import print_reading  # noqa: PLC0415 - see above
    from benchmarks.task import Reading  # noqa: PLC0415 - see above

    print_reading(Reading(seconds, 1, figures, {}))


if __name__ == "__main__":
    main()
