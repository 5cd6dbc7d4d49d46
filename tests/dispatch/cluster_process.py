"""A Dask cluster of two worker processes with a nanny each, as a process of its own.

    python cluster_process.py PORT READY

It writes the file READY when both workers are there. A worker that is killed is started again by its nanny.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]


def serve(port: int, ready: Path) -> None:
    from distributed import LocalCluster  # noqa: PLC0415 - only the parent needs it, its children import this module too

    with LocalCluster(
        n_workers=2,
        threads_per_worker=8,
        processes=True,
        host="127.0.0.1",
        scheduler_port=port,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=False,
        local_directory=str(ready.parent),
    ) as cluster:
        with cluster.get_client() as client:
            client.wait_for_workers(2)
            client.run(importlib.import_module, "spine_async.testing.conformance.pipelines")
            client.run(importlib.import_module, "spine_async.dispatch.dask.task")
        ready.touch()
        threading.Event().wait()


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(ROOT)  # for the workers, which are spawned, and which end when this process ends
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    serve(int(sys.argv[1]), Path(sys.argv[2]))
