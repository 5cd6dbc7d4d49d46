"""Random map workflows under random faults: no stored step runs again, and no row is lost or stored twice."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from spine_async.testing import VirtualTimeLoop
from tests.chaos.size import SEED, report, size
from tests.chaos.world import World


def test_maps_under_random_faults(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "spine_async")
    first = SEED * 100_000
    ends: Counter[str | None] = Counter()
    count = size(short=60, full=20_000)
    for seed in range(first, first + count):
        loop = VirtualTimeLoop()
        try:
            world = World(seed)
            ends[loop.run_until_complete(world.live())] += 1
        finally:
            loop.close()
        assert world.problems == [], f"seed {seed}"
    report("maps in trouble", n=count, ended=dict(ends))
