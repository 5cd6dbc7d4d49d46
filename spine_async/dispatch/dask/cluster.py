"""How a Dask cluster is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Security


@dataclass(frozen=True, slots=True)
class Cluster:
    """Address and limits of a cluster.

    Attributes:
        address: Address of its scheduler.
        security: TLS settings, or None.
        connect_timeout: Seconds until an attempt to connect fails.
        worker_timeout: Seconds to wait while there is no worker.
    """

    address: str
    security: Security | None
    connect_timeout: float
    worker_timeout: float
