"""Exceptions that end a run's execution and are not a step's failure.

They derive from `BaseException`, so that `except Exception` in a step or in middleware does not catch them.
"""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn, Self

import anyio

from spine_async._engine.tasks import CANCELLATION, cancellation_count, continue_cancellation, is_cancelled_since
from spine_async.errors import SharingError, SpineError, StoreError, WorkflowChangedError


class RunInterrupt(BaseException):
    """The run cannot or must not continue."""


class StopRequested(RunInterrupt):
    """A step inside a map item requested that the whole run stops."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Draining(RunInterrupt):
    """The runner is shutting down: running steps may finish, no further step begins."""


class TaskCancelled(RunInterrupt):
    """A task in which items or branches run was cancelled natively: by a step, or by an event loop that ends."""


class RunAlreadyRecorded(RunInterrupt):
    """The run's end was recorded while this step did not react to its cancellation."""


class RunAborted(RunInterrupt):
    """The execution ends and records nothing more: the run stays as it was last committed, and can be resumed.

    Attributes:
        error: The exception that the caller of `execute` receives.
    """

    error: SpineError

    def __init__(self, error: SpineError) -> None:
        self.error = error
        super().__init__(str(error))


class CommitFailed(RunAborted):
    """The store failed, or the run has another owner."""

    error: StoreError | SharingError

    def __init__(self, error: StoreError | SharingError) -> None:
        super().__init__(error)


class ResumeRefused(RunAborted):
    """The items of a map, or the steps of its iterator, differ from what is stored."""

    error: WorkflowChangedError

    def __init__(self, error: WorkflowChangedError) -> None:
        super().__init__(error)


class InterruptScope:
    """Carries an exception from a step's executor out of the step, past user code such as middleware.

    The executor calls `interrupt`: the scope is cancelled, so user code between the executor and the scope sees a
    cancellation and nothing else. Even if that code catches it, the exception is raised where the scope is left.
    """

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self._error: BaseException | None = None
        self._cancellations = 0

    async def interrupt(self, error: BaseException) -> NoReturn:
        """Raise `error` where the scope is left; of several errors the first one counts."""
        self._error = self._error or error
        self._scope.cancel()
        await continue_cancellation()  # user code may shield this task from the scope, or execute it in another task

    def __enter__(self) -> Self:
        self._cancellations = cancellation_count()
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.__exit__(None, None, None)  # given an exception group, it would raise another exception
        if self._error is None or isinstance(error, PROCESS_EXIT):
            return
        if isinstance(error, CANCELLATION) and is_cancelled_since(self._cancellations):
            return  # an outer cancellation takes precedence
        raise self._error from None


PROCESS_EXIT = (SystemExit, KeyboardInterrupt, GeneratorExit)
"""Exceptions that end the process or the task. No other exception replaces them."""


class RaisingErrors:
    """A context manager that raises the error of a `RunAborted`; stateless, so one instance serves all."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, RunAborted):
            raise error.error from error.error.__cause__


RAISING_ERRORS = RaisingErrors()
