"""Problem documents: which errors clients see, and what of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from spine_async import (
    CorruptRecordError,
    DefinitionError,
    InvalidParamsError,
    InvalidRunIdError,
    RunBusyError,
    RunConflictError,
    RunEndedError,
    RunNotFoundError,
    RunNotResumableError,
    SchemaVersionError,
    StoreError,
    StoreUnavailableError,
    WorkflowChangedError,
)
from spine_async.web import problems


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (RunNotFoundError("r1"), 404, "run-not-found"),
        (InvalidRunIdError("r1", "invalid"), 422, "invalid-run-id"),
        (InvalidParamsError("day: missing"), 422, "invalid-params"),
        (RunConflictError("r1", "other params"), 409, "run-conflict"),
        (RunNotResumableError("r1", "completed"), 409, "run-not-resumable"),
        (WorkflowChangedError("r1", "step", "is missing"), 409, "workflow-changed"),
        (RunEndedError("r1", "approval"), 409, "run-ended"),
        (StoreUnavailableError("no route to db.internal"), 503, "store-unavailable"),
        (StoreError("db.internal keeps no queues"), 500, "internal-error"),
        (CorruptRecordError("db.internal"), 500, "internal-error"),
        (SchemaVersionError(9, 3, "upgrade db.internal"), 500, "internal-error"),
        (DefinitionError("db.internal"), 500, "internal-error"),
        (KeyError("db.internal"), 500, "internal-error"),
    ],
)
def test_an_error_becomes_a_problem(error: Exception, status: int, slug: str) -> None:
    document = problems.problem_of(error).as_dict()
    assert (document["status"], document["type"]) == (status, f"urn:spine-async:problem:{slug}")
    assert document["title"]
    assert document["detail"]
    assert "db.internal" not in str(document)


def test_the_owner_of_a_run_is_not_shown() -> None:
    problem = problems.problem_of(RunBusyError("r1", "web-7.internal:4711:ab", datetime.now(UTC)))
    assert (problem.status, problem.slug) == (409, "run-busy")
    assert "internal" not in problem.detail


def test_a_detail_is_bounded_text_that_json_can_hold() -> None:
    document = problems.invalid_request("\ud800" + "x" * 10_000).as_dict()
    assert len(str(document["detail"])) < 2100
    assert str(document["detail"]).encode().startswith(b"\\ud800")


def test_missing_credentials_are_no_refusal() -> None:
    missing, refused = (problems.refused("stop_run", has_credentials=each) for each in (False, True))
    assert (missing.status, refused.status) == (401, 403)
    assert "WWW-Authenticate" in missing.headers
    assert refused.detail == "the caller may not stop run"
