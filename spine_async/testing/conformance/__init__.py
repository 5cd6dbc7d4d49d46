"""The contract of `spine_async.ports.RunStore` as a test suite for stores."""

from __future__ import annotations

from spine_async.testing.conformance.suite import RunStoreConformance

__all__ = ["RunStoreConformance"]
