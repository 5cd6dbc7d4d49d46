"""The package does not call what loses a cancellation."""

from __future__ import annotations

from pathlib import Path

import spine_async

PACKAGE = Path(spine_async.__file__).parent


def test_wait_for_is_not_used() -> None:
    """On Python 3.11 `asyncio.wait_for` drops a cancellation that arrives together with the result."""
    files = list(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    assert [str(each) for each in files if "asyncio.wait_for" in each.read_text(encoding="utf-8")] == []
