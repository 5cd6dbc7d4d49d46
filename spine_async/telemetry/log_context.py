"""A filter of log records that adds the run and the step which have logged.

An observer enters the context of each step. It is kept only after a filter was created, so that other programs do not
pay for it.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import NamedTuple

from spine_async.ports import StepSpan

NOWHERE = "-"
"""The value of the fields in a record that no step has logged."""


class RunContextFilter(logging.Filter):
    """Adds `run_id` and `step_path` to every record, for formatters and JSON encoders; lets every record pass.

    Both are those of the step in which the record was logged: in an `async def` or a `def` handler, in tasks that it
    starts, in pipelines of the local dispatcher, in middleware, and in libraries that these call. Elsewhere they are
    `"-"`. Add the filter to a handler of `logging`, not to a logger, because the filters of a logger do not see the
    records of the loggers below it. Only steps that begin after the filter was created are known to it.

    Example:
        >>> import logging
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(RunContextFilter())
        >>> handler.setFormatter(logging.Formatter("%(levelname)s %(run_id)s %(step_path)s %(message)s"))
    """

    def __init__(self) -> None:
        super().__init__()
        Use.is_needed = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields, and let the record pass."""
        record.run_id, record.step_path = _current.get()
        return True


class _Location(NamedTuple):
    run_id: str
    path: str


class Use:
    """Whether observers must enter the context of each step."""

    is_needed = False


_NOWHERE = _Location(NOWHERE, NOWHERE)
_current: ContextVar[_Location] = ContextVar("spine_async_location", default=_NOWHERE)


def located(run_id: str, path: str, span: AbstractContextManager[StepSpan]) -> AbstractContextManager[StepSpan]:
    """The span of a step, in whose context the filter knows the step."""
    return _LocatedSpan(_Location(run_id, path), span)


class _LocatedSpan(AbstractContextManager[StepSpan]):
    def __init__(self, location: _Location, span: AbstractContextManager[StepSpan]) -> None:
        self._location = location
        self._span = span
        self._outer = location

    def __enter__(self) -> StepSpan:
        self._outer = _current.get()
        _current.set(self._location)
        return self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        # Not by a token, which is valid in one context only: a step may be closed in another one.
        _current.set(self._outer)
        return self._span.__exit__(kind, error, trace)
