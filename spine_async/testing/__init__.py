"""Tools for tests: a test suite for stores, injected faults, and virtual time."""

from __future__ import annotations

from spine_async.testing.conformance import RunStoreConformance
from spine_async.testing.faults import FaultInjectingStore, Hang
from spine_async.testing.virtual_clock import VirtualClock, VirtualTimeLoop, run_virtual

__all__ = ["FaultInjectingStore", "Hang", "RunStoreConformance", "VirtualClock", "VirtualTimeLoop", "run_virtual"]
