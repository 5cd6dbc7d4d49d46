"""Executes one attempt of a step that writes in the transaction which also commits its end.

Theory of operation: the store opens the transaction and calls the handler. Then `complete` encodes the result, adds the
row of the visit to the pending writes of the run, and drains them into a change, which the store writes as the last
thing before the commit. Meanwhile the journal commits nothing of this run. If the commit succeeds, the visit counts as
stored (`is_stored`), and the loop applies its result to the scope. If nothing was written, the pending writes are as
before, and the attempt has failed. If nobody knows, or the run has another owner, the execution of the run ends.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Any

import anyio

from spine_async._engine.run.refusal import fitting_result
from spine_async._engine.run.transition import add_result
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.attempt_frame import visit_of
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.scope import Visit
from spine_async._engine.step.encoding import EncodedResult, as_result
from spine_async._engine.step.large_values import encode_large, encode_small, is_small
from spine_async._engine.tasks import CANCELLATION, call_to_end, spawn
from spine_async._model.context import WorkflowContext
from spine_async._model.failure import ErrorCategory
from spine_async._model.private_copy import private_members
from spine_async._model.run_change import RunChange
from spine_async._model.run_row import TOKEN_BYTES
from spine_async._model.step_result import StepResult
from spine_async._model.transaction_step import TransactionStep
from spine_async.errors import LeaseLostError, SharingError, StoreError
from spine_async.ports import CommitOutcome, TransactionStore, executes_transactions

SHARE_OF_LEASE = 3
"""A transaction may take this part of `lease_ttl`, so that it does not delay a renewal for too long."""


_NOT_EXECUTED = StepResult.fail("the transaction was not executed")


async def run_transaction(runtime: Runtime, step: TransactionStep, context: WorkflowContext) -> StepResult:
    """Execute the handler in a transaction that also commits the end of the step.

    Returns:
        The result of the handler. If it is a success, it is committed.
    """
    visit = visit_of(context)
    if visit.committed is not None:  # middleware executes the step once more
        return visit.committed.result
    if runtime.is_dry:
        return StepResult.ok()
    store = runtime.store
    if runtime.is_ephemeral or not executes_transactions(store):
        return _no_transactions(runtime, step)
    attempt = _Transaction(runtime, visit, step, context, store)
    try:
        outcome = await attempt.outcome()
    except CommitFailed as exc:
        await visit.interrupt(exc)
    if outcome is CommitOutcome.FENCED:
        await visit.interrupt(CommitFailed(LeaseLostError(visit.run.run_id)))
    return attempt.result


def _no_transactions(runtime: Runtime, step: TransactionStep) -> StepResult:
    if runtime.is_ephemeral:
        problem = "this runner stores nothing; enable checkpoints"
    else:
        problem = f"{runtime.store_name} is no SQL database; store the runs in SQLite or PostgreSQL"
    return StepResult.fail(f"step {step.name!r} is a transaction, but {problem}", ErrorCategory.CONFIGURATION)


@dataclass(frozen=True, slots=True)
class _Sent:
    """The change that the store has received, and the entries of the pending writes that are the end of the step."""

    change: RunChange
    first_entry: int
    entry_count: int
    encoded: EncodedResult


@dataclass(slots=True)
class _Transaction:
    """The transaction of one attempt.

    Attributes:
        result: The result of the attempt.
        sent: What the store has received; None before that, and if it has written nothing.
    """

    runtime: Runtime
    visit: Visit
    step: TransactionStep
    context: WorkflowContext
    store: TransactionStore
    result: StepResult = _NOT_EXECUTED
    sent: _Sent | None = None
    _returned: object = None
    _error: BaseException | None = None
    _is_cancelled: bool = False
    _began_mono: float = 0.0
    _scope: anyio.CancelScope | None = None
    _reservation: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def seconds(self) -> float:
        """Time limit of the transaction."""
        return self.runtime.config.lease_ttl / SHARE_OF_LEASE

    async def outcome(self) -> CommitOutcome | None:
        """Execute the transaction in a task of its own; returns what has become of the change, or None without one.

        Raises:
            CommitFailed: It is not known whether the change is committed, or an earlier commit of the run failed.

        Cancellation:
            Rolls the transaction back, unless its commit has begun: a success counts although the step was cancelled.
        """
        task = spawn(self._run(), f"spine_async transaction {self.visit.path}")
        try:
            return await call_to_end(task, self._cancel)
        except CANCELLATION:
            if self.visit.committed is None:
                raise
            return CommitOutcome.COMMITTED
        except TimeoutError:
            self.result = self._timed_out()
        except (StoreError, SharingError) as exc:
            if self.sent is not None or isinstance(exc, SharingError):
                raise CommitFailed(exc) from None
            self.reject(exc, is_transient=True)
        return None

    def _cancel(self) -> None:
        """Roll the transaction back, unless its commit has begun."""
        self._is_cancelled = True
        if self._scope is not None and self.sent is None:
            self._scope.cancel()

    async def _run(self) -> CommitOutcome | None:
        async with self._reservation:
            with anyio.CancelScope() as self._scope:
                if self.store.blocks_commits:  # later, a commit of this run would wait for the transaction
                    await self._reserve()
                outcome: CommitOutcome | None = None
                try:
                    outcome = await self.store.transact(self, self.seconds)
                finally:
                    self._settle(is_committed=outcome is CommitOutcome.COMMITTED)
                if outcome is None:
                    self.sent = None
                return outcome
        return None

    def execute(self, connection: Any) -> BaseException | None:
        """Call the handler; see `StepTransaction.execute`."""
        self._began_mono = self.runtime.clock.monotonic()
        config = private_members(self.step.config) if self.step.config else {}
        try:
            self._returned = self.step.handler(self.context, config, connection)
        except (Exception, GeneratorExit) as exc:  # noqa: BLE001 - user code: the attempt fails with what it raises
            self.reject(exc, is_transient=False)
        return self._error

    def reject(self, error: BaseException, *, is_transient: bool) -> None:
        """Let the attempt fail; see `StepTransaction.reject`."""
        self._error = error
        self.result = StepResult.from_exception(error)
        if is_transient:
            self.result = replace(self.result, category=ErrorCategory.TRANSIENT)

    async def complete(self) -> RunChange | None:
        """Build the change that commits the end of the step; see `StepTransaction.complete`."""
        encoded = await self._encoded() if self._error is None else None
        if encoded is None or not encoded.result.success:
            return None
        if not self.store.blocks_commits:
            await self._reserve()
        visit, pending, clock = self.visit, self.visit.run.pending, self.runtime.clock
        if clock.monotonic() - self._began_mono > self.seconds:
            self.result = self._timed_out()
            return None
        if self._is_cancelled or pending.end is not None or pending.open_visits.get(visit.path) is not visit:
            self.result = _NOT_EXECUTED  # nobody waits for it
            return None
        first = pending.entry_count
        elapsed_ms = round((clock.monotonic() - visit.started_mono) * 1_000_000) / 1000
        add_result(visit, encoded, visit.run.clock.now(), elapsed_ms)
        count = pending.entry_count - first
        change = pending.drain(clock.now(), token_hex(TOKEN_BYTES))
        self.sent = _Sent(change, first, count, encoded)
        return change

    def _timed_out(self) -> StepResult:
        """The result of an attempt whose transaction took too long."""
        problem = (
            f"the transaction of step {self.step.name!r} took longer than {self.seconds:g} s, a third of lease_ttl; "
            "write less in one transaction, or raise lease_ttl"
        )
        return replace(StepResult.fail(problem, ErrorCategory.TIMEOUT), exception=TimeoutError(problem))

    async def _encoded(self) -> EncodedResult:
        runtime, step, result = self.runtime, self.step, as_result(self.step, self._returned)
        encoded = encode_small(runtime, step, result) if is_small(result) else await encode_large(runtime, step, result)
        encoded = fitting_result(self.visit, encoded, runtime.max_value_bytes)
        self.result = encoded.result
        return encoded

    async def _reserve(self) -> None:
        await self._reservation.enter_async_context(self.runtime.journal.reserved(self.visit.run.pending))

    def _settle(self, *, is_committed: bool) -> None:
        """Accept the numbers of a change that was committed, or undo what `complete` has added."""
        sent, visit, pending = self.sent, self.visit, self.visit.run.pending
        if sent is None:
            return
        if is_committed:
            self.runtime.journal.committed(pending, sent.change)
            visit.committed = sent.encoded
            visit.is_stored = visit.is_announced = True
        else:
            pending.restore()
            pending.remove_entries(sent.first_entry, sent.entry_count)
            pending.begin_visit(visit)
