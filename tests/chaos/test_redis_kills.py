"""The kills of `test_kills` on a Redis server that writes each command to its disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.arena import Arena
from tests.chaos.nursery import Nursery
from tests.chaos.test_kills import (
    test_children_killed_at_random_lose_nothing_and_do_nothing_twice as test_children_killed_at_random,
)
from tests.chaos.test_kills import test_killed_at_every_failpoint
from tests.servers.redis import RedisServer, with_prefix

__all__ = ["test_children_killed_at_random", "test_killed_at_every_failpoint"]


@pytest.fixture
def arena(redis_to_kill: RedisServer, tmp_path: Path, nursery: Nursery) -> Arena:
    """A Redis server instead of a database."""
    return Arena(with_prefix(redis_to_kill.url, "arena"), tmp_path / "diary", nursery)
