from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest

from spine_async import errors
from spine_async.errors import (
    DefinitionError,
    LeaseLostError,
    MissingExtraError,
    RunBusyError,
    RunFailedError,
    RunNotFoundError,
    SchemaVersionError,
    SerializationError,
    SpineError,
    StepError,
    StoreCapabilityError,
    StoreError,
    WorkflowChangedError,
)


def test_everything_has_one_root() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BaseException)]
    assert len(kinds) > 20
    assert all(issubclass(kind, SpineError) for kind in kinds)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DefinitionError("no", workflow="load", step="a"), "workflow 'load', step 'a': no"),
        (DefinitionError("no", step="a"), "step 'a': no"),
        (DefinitionError("no"), "no"),
        (RunNotFoundError("r"), "run 'r' is not stored in this store; list_runs() lists the stored runs"),
        (
            RunBusyError("r", "host-1"),
            "run 'r' is being executed by host-1; wait for it to end, stop() it, or use another run id",
        ),
        (RunBusyError("r"), "run 'r' is being executed; wait for it to end, stop() it, or use another run id"),
        (
            WorkflowChangedError("r", "a", "is not there"),
            (
                "run 'r' cannot continue with this definition: finished step 'a' is not there; "
                "resume it with the definition it was started with, or start a new run"
            ),
        ),
        (RunFailedError("r", "failed", step="a", error="E: no"), "run 'r' failed at step 'a': E: no"),
        (RunFailedError("r", "stopped", step=None, error=None), "run 'r' stopped"),
        (
            StoreCapabilityError("FileRunStore", "keeps no queues", "use a database"),
            "FileRunStore keeps no queues; use a database",
        ),
        (LeaseLostError("r"), "run 'r' was claimed by another owner or deleted; this runner can no longer write to it"),
        (
            SchemaVersionError(9, 1, "upgrade spine-async"),
            "the database has schema version 9, but this library requires version 1; upgrade spine-async",
        ),
        (SerializationError("bad").within("[3]").within(".rows"), "$.rows[3]: bad"),
        (
            MissingExtraError("the Redis store", "redis"),
            "the Redis store needs an optional dependency: pip install 'spine-async[redis]'",
        ),
        (StepError("quota", "DEPENDENCY", retry_after=3.0), "quota"),
    ],
)
def test_messages_say_what_is_wrong_and_what_to_do(error: SpineError, message: str) -> None:
    assert str(error) == message


def test_families_are_also_what_python_calls_them() -> None:
    assert issubclass(DefinitionError, ValueError)
    assert issubclass(SerializationError, ValueError)
    assert issubclass(MissingExtraError, ImportError)
    assert issubclass(LeaseLostError, StoreError)


def test_attributes_are_typed() -> None:
    failed = RunFailedError("r", "failed", step="a", error="E", category="INTERNAL")
    assert (failed.run_id, failed.status, failed.step, failed.category) == ("r", "failed", "a", "INTERNAL")
    step = StepError("x", "TIMEOUT", retry_after=2.0)
    assert (step.category, step.retry_after) == ("TIMEOUT", 2.0)


@pytest.mark.parametrize(
    "error",
    [
        DefinitionError("wrong", workflow="w", step="s"),
        RunNotFoundError("r"),
        RunBusyError("r", "host/1", datetime(2026, 1, 1, tzinfo=UTC)),
        RunFailedError("r", "failed", step="a", error="E", category="INTERNAL"),
        WorkflowChangedError("r", "a", "is not in it"),
        StepError("x", "TIMEOUT", retry_after=2.0),
        LeaseLostError("r"),
        StoreCapabilityError("FileRunStore", "keeps no queues", "use a database"),
        SchemaVersionError(3, 2, "upgrade"),
        SerializationError("no", (".a", "[1]")),
        MissingExtraError("this", "that"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_a_process_border(error: SpineError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
