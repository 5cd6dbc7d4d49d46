"""The test class that contains the whole contract of a dispatcher."""

from __future__ import annotations

from spine_async.testing.conformance.pipeline_control import ControlContract
from spine_async.testing.conformance.pipeline_failures import FailureContract
from spine_async.testing.conformance.pipeline_results import ResultContract


class DispatcherConformance(ResultContract, FailureContract, ControlContract):
    """The contract of `Dispatcher` as tests.

    Subclass it, add a fixture `dispatcher` that yields a dispatcher which runs the pipelines of
    `spine_async.testing.conformance.pipelines:CONFORMANCE_PIPELINES`, and run the subclass with pytest and the plugin
    of anyio. The pipelines must see the temporary folders of the tests. For readable failures, call
    `pytest.register_assert_rewrite("spine_async.testing")` in `conftest.py`.

    Example:
        >>> import pytest
        >>> from spine_async import LocalDispatcher
        >>> from spine_async.testing.conformance.pipelines import CONFORMANCE_PIPELINES
        >>> @pytest.mark.anyio
        ... class TestMyDispatcher(DispatcherConformance):
        ...     @pytest.fixture
        ...     def dispatcher(self):
        ...         return LocalDispatcher(pipelines=CONFORMANCE_PIPELINES)
    """
