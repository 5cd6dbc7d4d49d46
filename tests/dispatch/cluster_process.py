"""A Dask cluster: a scheduler, and two worker processes that are started again when they end.

    python cluster_process.py PORT READY

It writes the file READY when both workers are there. Workers have no nanny of Dask, because that does not replace a
worker which is killed while it starts. Workers end when the scheduler is gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKERS = 2
MODULES = ("spine_async.testing.conformance.pipelines", "spine_async.dispatch.dask.task")

_running: list[subprocess.Popen[bytes]] = []


def work(address: str, folder: Path) -> None:
    """Run a worker, again and again."""
    options = ["--no-nanny", "--host", "127.0.0.1", "--nthreads", "8", "--no-dashboard", "--memory-limit", "0"]
    preloads = [word for module in MODULES for word in ("--preload", module)]
    place = ["--local-directory", str(folder)]
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options, *preloads, *place]
    while True:
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
        _running.append(process)
        process.wait()
        _running.remove(process)
        time.sleep(0.05)


def leave(*_: object) -> None:
    """End this process and its workers at once."""
    for process in _running:
        process.kill()
    os._exit(0)


async def serve(port: int, ready: Path) -> None:
    from distributed import Scheduler  # noqa: PLC0415 - after the workers' own imports have begun

    async with Scheduler(host="127.0.0.1", port=port, dashboard_address="127.0.0.1:0", dashboard=False) as scheduler:
        while len(scheduler.workers) < WORKERS:  # noqa: ASYNC110 - nothing else tells of them
            await asyncio.sleep(0.02)
        ready.touch()
        await scheduler.finished()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, leave)
    own_port, own_ready = int(sys.argv[1]), Path(sys.argv[2])
    for _ in range(WORKERS):
        arguments = (f"tcp://127.0.0.1:{own_port}", own_ready.parent)
        threading.Thread(target=work, args=arguments, daemon=True).start()
    asyncio.run(serve(own_port, own_ready))
