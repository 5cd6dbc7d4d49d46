"""Executes the calls of `context.once`, and records what they return.

A call that an earlier attempt of the visit has recorded is not executed: its value is returned. The values that earlier
executions of the run stored are read when the visit makes its first call. A step that makes no calls reads nothing.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Any

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.attempt_frame import Attempt
from spine_async._engine.state.once_calls import (
    OnceCalls,
    RecordedCall,
    add_recorded_call,
    content_hash,
)
from spine_async._engine.state.scope import Visit
from spine_async._engine.step.large_values import exceeds, size_problem
from spine_async._engine.tasks import is_in_loop, run_in_loop, run_shielded
from spine_async._model.async_callable import is_async_callable
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import Document, JsonValue, encode
from spine_async._model.large_document import ValueTooLargeError, encode_in_pieces, is_large
from spine_async._model.large_text import LARGE_TEXT
from spine_async._model.naming import MAX_NAME_LENGTH, text_problem
from spine_async._model.once_request import OnceRequest
from spine_async._model.status import StepType
from spine_async._model.visit_filter import VisitFilter
from spine_async._model.visit_row import ONCE_NAME, VisitRow
from spine_async.errors import AttemptEndedError, DefinitionError, SerializationError, StoreError

_PAGE = 256
"""Rows per page of recorded calls."""


@dataclass(frozen=True, slots=True)
class RuntimeOnceCaller:
    """Executes calls with the journal, the store and the threads of a runtime."""

    runtime: Runtime

    async def call(self, attempt: Attempt, number: int, request: OnceRequest) -> Any:
        """Execute the call unless its value is recorded; returns the value.

        A plain function is called in a worker thread, as a plain handler is.
        """
        _check(attempt, request)
        runtime, call, name = self.runtime, request.call, f"{attempt.visit.step.name}: {request.name}"
        begun = await _begin(runtime, attempt, number, request)
        try:
            if begun.recorded is not None:
                return await _value(runtime, attempt.visit, begun.recorded)
            is_async = is_async_callable(call)
            returned = call(*request.args) if is_async else await runtime.threads.call(name, call, *request.args)
            if inspect.isawaitable(returned):
                returned = await returned
            return await _record(runtime, attempt, number, begun, returned)
        except BaseException:
            begun.free(number)
            raise

    def call_in_thread(self, attempt: Attempt, number: int, request: OnceRequest) -> Any:
        """As `call`, in a thread other than that of the event loop; a plain function is called in this thread."""
        _check(attempt, request)
        if is_in_loop():
            problem = "once_in_thread would block the event loop; use `await context.once(…)` in an async def"
            raise DefinitionError(problem, step=attempt.visit.step.name)
        runtime, visit = self.runtime, attempt.visit
        wait = partial(run_in_loop, attempt.loop, ended=AttemptEndedError(visit.run.run_id, visit.path, number))
        if is_async_callable(request.call):
            return wait(self.call(attempt, number, request))
        begun: _Begun = wait(_begin(runtime, attempt, number, request))
        try:
            if begun.recorded is not None:
                return wait(_value(runtime, visit, begun.recorded))
            return wait(_record(runtime, attempt, number, begun, request.call(*request.args)))
        except BaseException:
            begun.free(number)
            raise


def _check(attempt: Attempt, request: OnceRequest) -> None:
    """Check the name and the function of a call.

    Raises:
        DefinitionError: One of them is invalid.
    """
    problem = text_problem(request.name, MAX_NAME_LENGTH)
    if problem is None and not callable(request.call):
        problem = f"the second argument must be a function, not {type(request.call).__name__}"
    if problem is not None:
        raise DefinitionError(f"once: {problem}", step=attempt.visit.step.name)
    if attempt.visit.step.step_type is StepType.TRANSACTION:
        problem = "once cannot be called inside a transaction, for whose commit it would wait; use a step before it"
        raise DefinitionError(problem, step=attempt.visit.step.name)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A call that has begun.

    Attributes:
        name: Its name.
        hash: Identifies it within the visit.
        calls: The calls of the visit.
    """

    name: str
    hash: str
    calls: OnceCalls

    @property
    def recorded(self) -> RecordedCall | None:
        """What is recorded under its hash, or None."""
        return self.calls.recorded.get(self.hash)

    def free(self, number: int) -> None:
        """Free the number of a call that raised. If its value is recorded, a repetition of the call returns it."""
        self.calls.free(number, self.hash)


async def _begin(runtime: Runtime, attempt: Attempt, number: int, request: OnceRequest) -> _Begun:
    """Begin a call.

    Raises:
        AttemptEndedError: The attempt has ended.
        SerializationError: The arguments, or the key, have no strict JSON form.
        StoreError: The recorded calls cannot be read.
    """
    attempt.check_running(number)
    content = await _content_hash(runtime, request)
    calls = attempt.visit.once_calls
    if calls is None:
        calls = attempt.visit.once_calls = OnceCalls()
    if not calls.is_loaded:
        await _load(runtime, attempt.visit, calls)
    attempt.check_running(number)
    return _Begun(request.name, calls.take(number, content), calls)


async def _content_hash(runtime: Runtime, request: OnceRequest) -> str:
    has_key = request.key is not None
    content = request.key if has_key else list(request.args)
    kind = "key" if has_key else "args"
    try:
        if is_large(content):
            return await runtime.run_on_thread(_hash_of, request.name, kind, content)
        return _hash_of(request.name, kind, content)
    except SerializationError as exc:
        way_out = "the key must be a JSON value" if has_key else "pass key= to identify the call without its arguments"
        problem = f"{exc.problem}; once({request.name!r}) identifies a call by the JSON of its {kind}: {way_out}"
        raise SerializationError(problem, (f".{kind}", *exc.parts)) from None


def _hash_of(name: str, kind: str, content: object) -> str:
    return content_hash(name, kind, encode(content))


async def _load(runtime: Runtime, visit: Visit, calls: OnceCalls) -> None:
    """Read the calls that earlier executions of the run recorded; there are none in its first execution."""
    run, after = visit.run, 0
    while run.pending.claim.epoch > 1 and not runtime.is_ephemeral:
        asked = runtime.store.visits(run.run_id, VisitFilter([visit.path], after=after, limit=_PAGE))
        rows = await run_shielded(asked, "spine_async load calls")
        calls_of_page = {_hash_in(row): row for row in rows if row.step_name == ONCE_NAME}
        for call_hash, row in calls_of_page.items():
            # Another call of the visit may have read it too, or recorded it.
            calls.recorded.setdefault(call_hash, RecordedCall(Document(row.output or "null")))
        if len(rows) < _PAGE:
            break
        after = rows[-1].seq
    calls.is_loaded = True


def _hash_in(row: VisitRow) -> str:
    return row.path.rpartition(":")[2]


async def _record(runtime: Runtime, attempt: Attempt, number: int, call: _Begun, returned: object) -> JsonValue:
    """Record what a call returned; returns its JSON value once it is committed.

    Raises:
        AttemptEndedError: The attempt has ended; nothing is recorded.
        SerializationError: The value cannot be stored.
        StoreError: It could not be committed.

    Cancellation:
        Takes effect at once. The value is committed with the next commit of the run, unless that fails.
    """
    document = await _encoded(runtime, call.name, returned)
    attempt.check_running(number)
    visit = attempt.visit
    add_recorded_call(visit, number, call.name, call.hash, document)
    recorded = RecordedCall(document, runtime.journal.enqueue(visit.run.pending))
    call.calls.recorded[call.hash] = recorded
    attempt.be_active()
    return await _value(runtime, visit, recorded)


async def _encoded(runtime: Runtime, name: str, returned: object) -> Document:
    limit, what = runtime.max_value_bytes, f"the value that once({name!r}) recorded"
    try:
        if is_large(returned):
            document = await runtime.run_on_thread(encode_in_pieces, returned, limit)
        else:
            document = encode(returned)
    except ValueTooLargeError as exc:
        raise SerializationError(size_problem(what, exc.size, limit)) from None
    except SerializationError as exc:
        raise SerializationError(
            f"{exc.problem}; once({name!r}) cannot store what its call returned", exc.parts
        ) from None
    if exceeds(document.text, limit):
        raise SerializationError(size_problem(what, document.size, limit))
    return document


async def _value(runtime: Runtime, visit: Visit, recorded: RecordedCall) -> JsonValue:
    """The value of a recorded call, once it is committed.

    Raises:
        StoreError: It could not be committed.
    """
    commit = recorded.commit
    if commit is not None:
        if commit.error is not None:  # its rows are pending again
            commit = recorded.commit = runtime.journal.enqueue(visit.run.pending)
        await commit.future()
        if commit.error is not None:
            error = getattr(commit.error, "error", commit.error)
            raise error if isinstance(error, StoreError) else StoreError(str(error))
    with CorruptionGuard(visit.run.run_id):
        if len(recorded.document.text) > LARGE_TEXT:
            return await runtime.run_on_thread(recorded.document.value)
        return recorded.document.value()
