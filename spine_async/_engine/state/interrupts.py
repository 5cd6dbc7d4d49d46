"""Exceptions that end a run's execution and are not a step's failure.

They derive from `BaseException`, so that `except Exception` in a step or in middleware does not catch them.
"""

from __future__ import annotations

from types import TracebackType

from spine_async.errors import SharingError, StoreError


class RunInterrupt(BaseException):
    """The run cannot or must not continue."""


class StopRequested(RunInterrupt):
    """A step inside a map item requested that the whole run stops."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Draining(RunInterrupt):
    """The runner is shutting down: running steps may finish, no further step begins."""


class RunAlreadyRecorded(RunInterrupt):
    """The run's end was recorded while this step did not react to its cancellation."""


class CommitFailed(RunInterrupt):
    """The journal could not commit; `error` is what the caller of `execute` receives."""

    def __init__(self, error: StoreError | SharingError) -> None:
        self.error = error
        super().__init__(str(error))


class RaisingStoreErrors:
    """A context manager that raises the `StoreError` of a `CommitFailed`; stateless, so one instance serves all."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CommitFailed):
            raise error.error from error.error.__cause__


RAISING_STORE_ERRORS = RaisingStoreErrors()
