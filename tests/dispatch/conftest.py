"""A real Dask cluster for all tests of a session: a scheduler and two worker processes on 127.0.0.1."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spine_async.dispatch.dask import DaskDispatcher
from tests.conftest import Servers
from tests.servers.process import ServerError, ServerProcess, free_port

REGISTRY = "spine_async.testing.conformance.pipelines:CONFORMANCE_PIPELINES"

_PATIENCE = 120.0
"""Seconds in which three processes import Dask and this library, on a slow machine."""


class DaskCluster:
    """A cluster of this suite's own."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="spine-dask-"))
        port = free_port()
        ready = folder / "ready"
        script = str(Path(__file__).with_name("cluster_process.py"))
        self.address = f"tcp://127.0.0.1:{port}"
        try:
            self.process = ServerProcess([sys.executable, script, str(port), str(ready)], folder, lambda: True)
            self._wait_until(ready)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _wait_until(self, ready: Path) -> None:
        give_up_at = time.monotonic() + _PATIENCE
        while not ready.exists():
            if time.monotonic() > give_up_at:
                self.process.stop()
                raise ServerError(f"the Dask cluster was not ready within {_PATIENCE:g} s")
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.stop()


@pytest.fixture
def cluster(_services: None, _servers: Servers) -> DaskCluster:
    """The cluster of this session."""
    found: DaskCluster = _servers.get("dask", DaskCluster)
    return found


@pytest.fixture
async def cluster_to_hurt(cluster: DaskCluster) -> AsyncIterator[DaskCluster]:
    """The cluster of this session; its workers may be killed. Afterwards both are there again."""
    from distributed import Client  # noqa: PLC0415 - an environment that was made before the extra existed has none

    yield cluster
    async with Client(cluster.address, asynchronous=True, set_as_default=False) as client:
        await client.wait_for_workers(2, timeout=_PATIENCE)


@pytest.fixture
async def dispatcher(cluster: DaskCluster) -> AsyncIterator[DaskDispatcher]:
    """A dispatcher for the pipelines of the conformance suite."""
    dispatcher = DaskDispatcher(cluster.address, pipelines=REGISTRY, worker_timeout=_PATIENCE)
    yield dispatcher
    await dispatcher.close()
