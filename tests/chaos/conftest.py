"""Fixtures of the randomised tests: a process that forks children, and a database for them."""

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
def arena(empty_database_url: str, tmp_path: Path, nursery: Nursery) -> Arena:
    """An empty database (SQLite, then PostgreSQL), a diary, and child processes that use both."""
    return Arena(empty_database_url, tmp_path / "diary", nursery)
