"""What the randomised tests share: a process that forks children, and databases to be killed on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.arena import Arena
from tests.chaos.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """One warm process from which all children are forked."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def arena(database_url: str, tmp_path: Path, nursery: Nursery) -> Arena:
    """An empty database, SQLite and PostgreSQL in turn, a diary, and children to work on it."""
    return Arena(database_url, tmp_path / "diary", nursery)
