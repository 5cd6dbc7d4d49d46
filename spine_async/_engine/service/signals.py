"""Sends a signal to a stored run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ValidationError

from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.stored_run import find
from spine_async._engine.step.large_values import exceeds, size_problem
from spine_async._engine.tasks import run_shielded
from spine_async._model.document import Document, encode
from spine_async._model.due import Delivery, NewMessage
from spine_async._model.failure import describe, validation_problems
from spine_async._model.large_document import ValueTooLargeError, encode_in_pieces, is_large
from spine_async._model.limits import MAX_PATH_BYTES
from spine_async._model.model_form import encode_model, narrowed
from spine_async._model.naming import MAX_NAME_LENGTH, is_path, text_problem
from spine_async._model.signal_step import SignalStep
from spine_async._model.step import Definition
from spine_async.errors import (
    DefinitionError,
    InvalidSignalError,
    RunEndedError,
    RunNotFoundError,
    SerializationError,
    StoreCapabilityError,
)
from spine_async.ports import keeps_due_runs, writes_within

_MAX_KEY_LENGTH = 200


async def send_signal(
    runtime: Runtime,
    workflows: Mapping[str, Definition],
    run_id: str,
    name: str,
    value: object,
    *,
    idempotency_key: str | None,
    connection: object = None,
) -> None:
    """Store a signal for a run, and wake the run.

    Args:
        runtime: What all runs share.
        workflows: The definitions that are known here, by name.
        run_id: The run.
        name: Name of the signal, or a token that addresses one visit.
        value: The value; must have a strict JSON form.
        idempotency_key: Of two signals with the same key for one run, the second is not stored. None: each is.
        connection: The caller's own connection or session, in whose transaction the signal is stored; None stores it
            at once.

    Raises:
        InvalidSignalError: The name, the key or the value is invalid, or the value does not fit the model of the step.
        RunNotFoundError: There is no such run.
        RunEndedError: The run has completed.
        DefinitionError: The runner stores nothing, or the connection cannot be used.
        StoreCapabilityError: The store stores no signals, or not in a transaction of the caller.
        StoreError: The store cannot be written.
    """
    _check_texts(run_id, name, idempotency_key)
    _check_store(runtime, connection)
    document = await _encoded(runtime, run_id, name, value)
    models = _models(workflows, name)
    if models:
        stored = await find(runtime, run_id, connection)
        expected = models.get(stored.workflow_name, []) if stored is not None else []
        _check_model(expected, run_id, name, document, value)
    message = NewMessage(
        run_id=run_id,
        name=name,
        value=document.text,
        received_at=runtime.clock.now(),
        idempotency_key=idempotency_key,
    )
    delivery = await _deliver(runtime, message, connection)
    if delivery is Delivery.NOT_FOUND:
        raise RunNotFoundError(run_id)
    if delivery is Delivery.ENDED:
        raise RunEndedError(run_id, name)


def signal_models(definition: Definition, name: str) -> list[type[BaseModel] | None]:
    """The model of each step of a workflow, also inside its steps, that takes signals of this name or token."""
    steps = _steps_at(definition, name) if is_path(name) else _steps_named(definition, name)
    return [step.model for step in steps]


def _steps_named(definition: Definition, name: str) -> Iterator[SignalStep]:
    for step in definition.steps:
        if isinstance(step, SignalStep) and step.signal == name:
            yield step
        for inner in step.inner.values():
            yield from _steps_named(inner, name)


def _steps_at(definition: Definition, path: str) -> Iterator[SignalStep]:
    first, _, rest = path.partition("/")
    segment, _, key = first.partition("[")
    name = segment.partition("#")[0]
    step = definition.step(name) if name in definition.positions else None
    if rest and step is not None:
        inner = step.inner.get(key.removesuffix("]"), step.inner.get(""))
        yield from _steps_at(inner, rest) if inner is not None else ()
    elif isinstance(step, SignalStep):
        yield step


def _check_texts(run_id: str, name: object, key: object) -> None:
    if isinstance(name, str) and is_path(name):
        is_long = len(name.encode("utf-8", "replace")) > MAX_PATH_BYTES
        problem = f"a token has at most {MAX_PATH_BYTES:,} bytes" if is_long else text_problem(name, MAX_PATH_BYTES)
    else:
        problem = text_problem(name, MAX_NAME_LENGTH)
    if problem is None and key is not None:
        problem = text_problem(key, _MAX_KEY_LENGTH)
        problem = problem.replace("a name", "an idempotency key", 1) if problem is not None else None
    if problem is not None:
        raise InvalidSignalError(run_id, str(name)[:40].encode("utf-8", "backslashreplace").decode(), problem)


def _check_store(runtime: Runtime, connection: object) -> None:
    store = runtime.store_name
    if runtime.is_ephemeral:
        raise DefinitionError("this runner stores nothing, so it cannot send a signal; enable checkpoints")
    if not keeps_due_runs(runtime.store):
        raise StoreCapabilityError(store, "stores no signals", "use a database")
    if connection is not None and not writes_within(runtime.store):
        way_out = "leave out connection=, or use a database"
        raise StoreCapabilityError(store, "cannot store a signal in your transaction", way_out)


async def _encoded(runtime: Runtime, run_id: str, name: str, value: object) -> Document:
    limit = runtime.config.max_value_bytes
    try:
        if is_large(value) and not isinstance(value, BaseModel):
            document = await runtime.run_on_thread(encode_in_pieces, value, limit)
        else:
            document = encode_model(value, type(value)) if isinstance(value, BaseModel) else encode(value)
    except ValueTooLargeError as exc:
        raise InvalidSignalError(run_id, name, size_problem("its value", exc.size, limit)) from None
    except SerializationError as exc:
        raise InvalidSignalError(run_id, name, f"its value cannot be stored: {exc}") from exc
    if exceeds(document.text, limit):
        raise InvalidSignalError(run_id, name, size_problem("its value", document.size, limit))
    return document


def _models(workflows: Mapping[str, Definition], name: str) -> dict[str, list[type[BaseModel] | None]]:
    """For each workflow the models of its steps that take the signal; empty if none of them has a model."""
    models = {workflow: signal_models(definition, name) for workflow, definition in list(workflows.items())}
    return models if any(model is not None for each in models.values() for model in each) else {}


def _check_model(
    expected: list[type[BaseModel] | None], run_id: str, name: str, document: Document, value: object
) -> None:
    """Check that the value fits the model of a step that takes it."""
    problems = [_problem(model, document, value) for model in expected]
    if problems and all(problem is not None for problem in problems):
        raise InvalidSignalError(run_id, name, f"its value does not fit {problems[0]}")


def _problem(model: type[BaseModel] | None, document: Document, value: object) -> str | None:
    """The name of the model and why the value does not fit it, or None if it fits."""
    if model is None:
        return None
    try:
        found = narrowed(value, document.revive(model))
    except ValidationError as exc:
        return f"{model.__name__}: {validation_problems(exc)}"
    except Exception as exc:  # noqa: BLE001 - validators are user code
        return f"{model.__name__}: {describe(exc)}"
    if found is None:
        return None
    path, passed = found
    at = f" at {''.join(path)}" if path else ""
    return f"{model.__name__}: it is a {type(passed).__name__}{at}, whose other fields the model would drop"


async def _deliver(runtime: Runtime, message: NewMessage, connection: object) -> Delivery:
    store = runtime.store
    if connection is not None and writes_within(store):
        return await store.send_within(connection, message)
    delivery = await run_shielded(runtime.due_runs.send(message), "spine_async signal")
    runtime.changes.notify(*Change)
    return delivery
