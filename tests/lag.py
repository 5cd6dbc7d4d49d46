"""A probe of how long the event loop is blocked."""

from __future__ import annotations

import time

import anyio


class LoopLag:
    """Measures the longest turn of the event loop.

    The CPU time of the loop's thread does not depend on what else the machine does. It does not include the time for
    which another thread holds the interpreter lock.

    Attributes:
        turns: Iterations of the loop.
        worst_ms: Longest time between two iterations.
        worst_cpu_ms: Most CPU time of the loop's thread between two iterations.
    """

    def __init__(self) -> None:
        self.turns = 0
        self.worst_ms = 0.0
        self.worst_cpu_ms = 0.0

    async def measure(self) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        while True:
            await anyio.sleep(0.001)
            before_wall, before_cpu = wall, cpu
            wall, cpu = time.perf_counter(), time.thread_time()
            self.turns += 1
            self.worst_ms = max(self.worst_ms, (wall - before_wall) * 1000)
            self.worst_cpu_ms = max(self.worst_cpu_ms, (cpu - before_cpu) * 1000)
