"""The contracts of `spine_async.ports.RunStore` and `spine_async.ports.Dispatcher` as test suites."""

from __future__ import annotations

from spine_async.testing.conformance.dispatchers import DispatcherConformance
from spine_async.testing.conformance.suite import RunStoreConformance

__all__ = ["DispatcherConformance", "RunStoreConformance"]
