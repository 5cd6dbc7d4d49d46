"""Tools for tests: killed and resumed workflows, mocked steps, contracts as test suites, faults, and virtual time."""

from __future__ import annotations

from spine_async.testing.compatibility import Incompatibility, check_compatible
from spine_async.testing.conformance import DispatcherConformance, RunStoreConformance
from spine_async.testing.faults import FaultInjectingStore, Hang
from spine_async.testing.mocks import mock_steps
from spine_async.testing.resumption import assert_resumes
from spine_async.testing.virtual_clock import VirtualClock, VirtualTimeLoop, run_virtual

__all__ = [
    "DispatcherConformance",
    "FaultInjectingStore",
    "Hang",
    "Incompatibility",
    "RunStoreConformance",
    "VirtualClock",
    "VirtualTimeLoop",
    "assert_resumes",
    "check_compatible",
    "mock_steps",
    "run_virtual",
]
