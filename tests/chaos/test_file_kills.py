"""The kills of `test_kills` on the file store; its failpoints lie within the writes to the logs, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.arena import Arena
from tests.chaos.nursery import Nursery
from tests.chaos.test_kills import (
    test_children_killed_at_random_lose_nothing_and_do_nothing_twice as test_children_killed_at_random,
)
from tests.chaos.test_kills import test_killed_at_every_failpoint

__all__ = ["test_children_killed_at_random", "test_killed_at_every_failpoint"]


@pytest.fixture
def arena(tmp_path: Path, nursery: Nursery) -> Arena:
    """A folder instead of a database."""
    return Arena(f"file:{tmp_path / 'runs'}", tmp_path / "diary", nursery)
