"""What ends a run from inside without being a step's failure.

They derive from `BaseException` so that a step's or middleware's `except Exception` cannot take them for one.
"""

from __future__ import annotations

from types import TracebackType

from spine_async.errors import StoreError


class RunInterrupt(BaseException):
    """The run cannot or must not go on."""


class StopRequested(RunInterrupt):
    """A step inside a map's item asked for the whole run to stop."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Draining(RunInterrupt):
    """The runner is being left: what is at work may finish, and nothing further begins."""


class LeftBehind(RunInterrupt):
    """The run was recorded without this step, which has only now come to an end."""


class CommitFailed(RunInterrupt):
    """The journal could not commit; `error` is what the caller of `execute` gets."""

    def __init__(self, error: StoreError) -> None:
        self.error = error
        super().__init__(str(error))


class RaisingStoreErrors:
    """On the way out of the engine a failed commit becomes the error that the caller is told of; one serves all."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CommitFailed):
            raise error.error from error.error.__cause__


RAISING_STORE_ERRORS = RaisingStoreErrors()
