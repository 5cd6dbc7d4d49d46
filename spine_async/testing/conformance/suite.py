"""The test class that contains the whole contract of a store."""

from __future__ import annotations

from spine_async.testing.conformance.children import ChildContract
from spine_async.testing.conformance.claim import ClaimContract
from spine_async.testing.conformance.commit import CommitContract
from spine_async.testing.conformance.create import CreateContract
from spine_async.testing.conformance.delete import DeleteContract
from spine_async.testing.conformance.due_runs import DueRunContract
from spine_async.testing.conformance.events import EventContract
from spine_async.testing.conformance.fence import FenceContract
from spine_async.testing.conformance.forks import ForkContract
from spine_async.testing.conformance.lease import LeaseContract
from spine_async.testing.conformance.messages import MessageContract
from spine_async.testing.conformance.open_close import OpenContract
from spine_async.testing.conformance.overview import OverviewContract
from spine_async.testing.conformance.queues import QueueContract
from spine_async.testing.conformance.reads import ReadContract
from spine_async.testing.conformance.release import ReleaseContract
from spine_async.testing.conformance.renew import RenewContract
from spine_async.testing.conformance.runs import ListContract
from spine_async.testing.conformance.schedules import ScheduleContract
from spine_async.testing.conformance.sweeps import SweepContract
from spine_async.testing.conformance.telemetry import TelemetryContract
from spine_async.testing.conformance.transactions import TransactionContract
from spine_async.testing.conformance.values import ValueContract
from spine_async.testing.conformance.visits import VisitContract


class RunStoreConformance(
    OpenContract,
    CreateContract,
    ClaimContract,
    LeaseContract,
    RenewContract,
    CommitContract,
    FenceContract,
    VisitContract,
    EventContract,
    ReadContract,
    ListContract,
    DeleteContract,
    ValueContract,
    DueRunContract,
    SweepContract,
    ReleaseContract,
    MessageContract,
    QueueContract,
    TelemetryContract,
    OverviewContract,
    ForkContract,
    ScheduleContract,
    TransactionContract,
    ChildContract,
):
    """The contract of `RunStore` as tests.

    Subclass it, add a fixture `store` that yields an empty store, and run the subclass with pytest and the plugin of
    anyio. For readable failures, call `pytest.register_assert_rewrite("spine_async.testing")` in `conftest.py`.

    Example:
        >>> import pytest
        >>> from spine_async.storage import MemoryRunStore
        >>> @pytest.mark.anyio
        ... class TestMyStore(RunStoreConformance):
        ...     @pytest.fixture
        ...     async def store(self):
        ...         store = MemoryRunStore()
        ...         yield store
        ...         await store.close()
    """
