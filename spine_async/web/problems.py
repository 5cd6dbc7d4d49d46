"""Problem documents: how errors are shown to clients.

Source: RFC 9457, "Problem Details for HTTP APIs".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spine_async.errors import (
    InvalidParamsError,
    InvalidRunIdError,
    InvalidSignalError,
    QueueDeadlockError,
    RunBusyError,
    RunConflictError,
    RunEndedError,
    RunNotFoundError,
    RunNotResumableError,
    ScheduleNotFoundError,
    SerializationError,
    SpineError,
    StoreCapabilityError,
    StoreUnavailableError,
    WorkflowChangedError,
)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:spine-async:problem:"
"""The prefix of the types of problems. A type identifies a problem; it is not the address of a page."""

_DETAIL_LENGTH = 2000


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
        status: HTTP status code.
        slug: Name of the problem, the end of its type.
        title: What the type means, the same for each occurrence.
        detail: What is wrong this time, and what to do.
        errors: The invalid values: a mapping with `location` and `message` for each.
        headers: Headers of the answer.
    """

    status: int
    slug: str
    title: str
    detail: str
    errors: Sequence[Mapping[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_fault(self) -> bool:
        """Whether the client is not the one to act, so that the reason belongs into the log, and only there."""
        return self.status in {500, 503}

    def as_dict(self) -> dict[str, object]:
        """The document: `type`, `title`, `status`, `detail`, and `errors` if there are any."""
        document: dict[str, object] = {
            "type": TYPE_PREFIX + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail[:_DETAIL_LENGTH].encode("utf-8", "backslashreplace").decode(),
        }
        return document | {"errors": [dict(each) for each in self.errors]} if self.errors else document


class ProblemError(Exception):
    """Ends a request with a problem.

    Attributes:
        problem: The problem.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.detail)


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    slug: str
    title: str


_NOT_FOUND = _Kind(404, "run-not-found", "The run is not stored")
_INTERNAL = _Kind(500, "internal-error", "The server could not answer the request")
_UNSUPPORTED = _Kind(501, "unsupported-by-store", "The store of the runs cannot do this")
_UNAVAILABLE = _Kind(503, "store-unavailable", "The store of the runs is not available")

_KINDS: Mapping[type[SpineError], _Kind] = {
    RunNotFoundError: _NOT_FOUND,
    ScheduleNotFoundError: _Kind(404, "schedule-not-found", "The schedule is not known"),
    InvalidRunIdError: _Kind(422, "invalid-run-id", "The run id is invalid"),
    InvalidParamsError: _Kind(422, "invalid-params", "The params do not fit the workflow"),
    InvalidSignalError: _Kind(422, "invalid-signal", "The signal is invalid"),
    SerializationError: _Kind(422, "invalid-value", "A value has no strict JSON form"),
    RunBusyError: _Kind(409, "run-busy", "The run is being executed"),
    RunConflictError: _Kind(409, "run-conflict", "The request does not fit the stored run"),
    RunNotResumableError: _Kind(409, "run-not-resumable", "The run cannot be resumed"),
    RunEndedError: _Kind(409, "run-ended", "The run has completed"),
    QueueDeadlockError: _Kind(409, "queue-deadlock", "The run would wait for itself"),
    WorkflowChangedError: _Kind(409, "workflow-changed", "The definition does not fit the stored run"),
    StoreCapabilityError: _UNSUPPORTED,
    StoreUnavailableError: _UNAVAILABLE,
}
"""The errors that a client may see. All others are errors of the application or of its operators."""


def problem_of(error: Exception) -> Problem:
    """The problem for an error. The details of an error that is not the client's are not shown."""
    if isinstance(error, ProblemError):
        return error.problem
    kind = next((_KINDS[each] for each in type(error).__mro__ if each in _KINDS), _INTERNAL)
    if kind is _UNAVAILABLE:
        detail = "the store cannot be reached at present; try again"
        return Problem(kind.status, kind.slug, kind.title, detail, headers={"Retry-After": "1"})
    if kind is _INTERNAL:
        return Problem(kind.status, kind.slug, kind.title, "the log of the server contains the reason")
    return Problem(kind.status, kind.slug, kind.title, _detail(error))


def _detail(error: Exception) -> str:
    if isinstance(error, RunBusyError):  # its text names the process that executes the run
        return f"run {error.run_id!r} is being executed; wait until it has ended, or stop it"
    if isinstance(error, RunNotFoundError):
        return f"run {error.run_id!r} is not stored"
    return error.problem if isinstance(error, InvalidParamsError) else str(error)


def invalid_request(detail: str, errors: Sequence[Mapping[str, str]] = ()) -> Problem:
    """The problem of a request with an invalid query, header or body."""
    return Problem(422, "invalid-request", "The request is invalid", detail, errors)


def malformed_body(detail: str) -> Problem:
    """The problem of a body that is not strict JSON."""
    return Problem(400, "malformed-body", "The body is not valid JSON", detail)


def unsupported_body(detail: str) -> Problem:
    """The problem of a body that is not declared to be JSON."""
    return Problem(415, "unsupported-media-type", "The body must be JSON", detail)


def body_too_large(limit: int) -> Problem:
    """The problem of a body with more bytes than the limit."""
    detail = f"the body is larger than {limit:,} bytes"
    return Problem(413, "body-too-large", "The body is too large", detail, headers={"Connection": "close"})


def unsupported(detail: str) -> Problem:
    """The problem of a request that the store of the runner cannot serve."""
    return Problem(_UNSUPPORTED.status, _UNSUPPORTED.slug, _UNSUPPORTED.title, detail)


def workflow_not_found(name: str) -> Problem:
    """The problem of a request for a workflow that the runner does not know."""
    return Problem(404, "workflow-not-found", "The workflow is not known", f"there is no workflow {name!r:.250}")


def method_not_allowed(allowed: Sequence[str]) -> Problem:
    """The problem of a request with a method that its path does not have."""
    methods = ", ".join(allowed)
    title = "The path does not have this method"
    return Problem(405, "method-not-allowed", title, f"use {methods}", headers={"Allow": methods})


def refused(action: str, *, has_credentials: bool) -> Problem:
    """The problem of a caller who may not do what was asked for."""
    if not has_credentials:
        detail = "the request has no credentials: neither an Authorization header nor a cookie"
        return Problem(401, "unauthorized", "Credentials are missing", detail, headers={"WWW-Authenticate": "Bearer"})
    return Problem(403, "forbidden", "The caller may not do this", f"the caller may not {action.replace('_', ' ')}")
