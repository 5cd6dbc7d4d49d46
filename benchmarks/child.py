"""The measuring process: reads its task from the command line and prints the result in one line.

Uses only the standard library, because it also runs in the environments of the peers.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib import metadata
from pathlib import Path

from benchmarks.task import Reading, Task

MARK = "READING "

Verb = Callable[[Task], Awaitable[Reading]]


def answer(verbs: Mapping[str, Verb], packages: Sequence[str] = ()) -> None:
    """Execute the task of the command line and print its reading."""
    task = Task(**json.loads(sys.argv[1]))
    reading = asyncio.run(_done(verbs[task.verb], task))
    print_reading(reading, packages)


def print_reading(reading: Reading, packages: Sequence[str] = ()) -> None:
    """Print the reading, with the process's peak memory and the packages' versions."""
    figures = {"peak_rss_mb": peak_rss_mb(), **reading.figures}
    versions = {name: metadata.version(name) for name in packages}
    print(MARK + json.dumps(asdict(replace(reading, figures=figures, versions=versions))), flush=True)


def die_after(reading: Reading) -> None:
    """Print the reading and end this process at once, like a crash."""
    print_reading(reading)
    os._exit(0)


def start_clock() -> float:
    """Collect the garbage of imports and warm-up, then return the start time of the measurement."""
    gc.collect()
    return time.perf_counter()


async def timed(work: Awaitable[object], units: int) -> Reading:
    """Measure how long `work` takes; `units` is the number of steps, items or runs in it."""
    began = start_clock()
    cpu = time.process_time()
    await work
    return Reading(time.perf_counter() - began, units, cpu_figures(cpu, units))


def payload_text(number: int, size: int) -> str:
    """A text of `size` characters that differs for each number and does not compress."""
    noise = _noise()
    start = number * size % (len(noise) - size)
    return noise[start : start + size]


@cache
def _noise() -> str:
    return random.Random(1).randbytes(1 << 19).hex()  # noqa: S311 - not a secret


def first_new(task: Task, reached: Sequence[tuple[int, float]], began: float) -> Reading:
    """The time from the start of a resume to its first step, which must follow the stored steps."""
    index, at = reached[0]
    if index != task.size["steps"]:
        raise AssertionError(f"the resume started with step {index} instead of {task.size['steps']}")
    return Reading(at - began, 1)


def latency_figures(latencies: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds of latencies in seconds."""
    ordered = sorted(latencies)
    last = len(ordered) - 1
    return {"p50_ms": ordered[round(last * 0.5)] * 1000, "p95_ms": ordered[round(last * 0.95)] * 1000}


def cpu_figures(began: float, units: int) -> dict[str, float]:
    """Processor time of this process per unit, since a reading of `time.process_time`."""
    return {"cpu_us": (time.process_time() - began) / units * 1e6}


def peak_rss_mb() -> float:
    """Peak memory of this process in MB."""
    return _status("VmHWM")


def rss_mb() -> float:
    """Current memory of this process in MB."""
    return _status("VmRSS")


def _status(name: str) -> float:
    # /proc, because ru_maxrss of a new process starts with the value of its parent.
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return _rusage()
    (line,) = (each for each in lines if each.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def _rusage() -> float:
    import resource  # noqa: PLC0415 - Windows has none

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1 << 20 if sys.platform == "darwin" else 1 << 10)


async def _done(verb: Verb, task: Task) -> Reading:
    return await verb(task)
