"""Log entries for failed attempts and failed steps. Messages of exceptions are left out: they may quote values."""

from __future__ import annotations

import logging
from typing import Any

from spine_async._engine.state.scope import Visit
from spine_async._model.redaction import redacted
from spine_async._model.step_result import StepResult

_log = logging.getLogger("spine_async")


def log_retry(visit: Visit, result: StepResult, delay: float) -> None:
    """Log a failed attempt that is followed by a retry."""
    _log.warning(
        "run %s: attempt %d of step %s failed (%s); the next attempt starts in %.3g s",
        visit.run.run_id,
        visit.attempts,
        visit.path,
        result.category,
        delay,
        exc_info=_exc_info(result.exception),
    )


def log_failure(visit: Visit, result: StepResult) -> None:
    """Log a step whose attempts are used up, once."""
    error = result.exception
    is_logged = error is not None and error is visit.inner_error  # logged before, with the step inside
    _log.error(
        "run %s: step %s failed after %d attempt(s) (%s); its error text is stored with the run",
        visit.run.run_id,
        visit.path,
        visit.attempts,
        result.category,
        exc_info=None if is_logged else _exc_info(error),
    )


def log_error_of_cancelled(visit: Visit, error: BaseException) -> None:
    """Log an exception that user code raised while it was being cancelled; the cancellation decides the outcome."""
    _log.warning(
        "run %s: step %s raised %s while it was being cancelled; the cancellation decides the outcome",
        visit.run.run_id,
        visit.path,
        type(error).__name__,
        exc_info=_exc_info(error),
    )


def _exc_info(error: BaseException | None) -> Any:
    if error is None or error.__traceback__ is None or not _log.isEnabledFor(logging.WARNING):
        return None  # the step returned a failure and raised nothing
    copy = redacted(error)
    return type(copy), copy, copy.__traceback__
