"""The Dask dispatcher passes the contract of dispatchers, on a real cluster."""

from __future__ import annotations

import pytest

from spine_async.testing import DispatcherConformance

pytestmark = pytest.mark.anyio


class TestDaskDispatcher(DispatcherConformance):
    """The fixture `dispatcher` is that of `conftest.py`."""
