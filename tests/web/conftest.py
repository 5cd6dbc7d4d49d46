"""Fixtures: a server of each framework in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.web.sites import FRAMEWORKS, Site, site_of


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def site(framework: str, sqlite_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """A server of this process on an SQLite file, with each framework in turn."""
    async with site_of(framework, sqlite_url, tmp_path, heartbeat=0.05) as made:
        yield made
