"""The only writer: what settled steps of all runs added is committed in groups, by a task that belongs to the runner.

Theory of operation: a run that has something to commit puts its ledger among the waiting ones and waits. If no writer
is at work, one is started. The writer takes everything that waits, commits it in one call of the store, wakes those
who waited, and looks again; it is gone when nothing waits. So a lone run commits at once, and a busy runner commits
in groups as large as whatever settled while the last one was in flight. There is no timer and no size to tune.

Many that do not wait for anything else would all be in one group, and the event loop idle while it is committed. Where
the store does that with another's processor they are woken in two halves, so that one works while the other is stored.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio.lowlevel

from spine_async._engine.background import Gate, Promise, in_another_turn, insist, next_turn, spawn, wake
from spine_async._engine.ledger import Ledger
from spine_async._engine.signals import CommitFailed
from spine_async._model.mark import new_mark
from spine_async._model.record import Claim, NewRun, RunChange
from spine_async.errors import LeaseLostError, SpineError, StoreError, StoreUnavailableError
from spine_async.ports import Clock, CommitOutcome, RunStore

_FEW = 32  # woken, who are not worth a commit more
_TURN = 0.001  # seconds that steps which never wait may keep the event loop to themselves


class Recorder(Protocol):
    """Where runs are created and their ledgers committed."""

    async def create(self, creation: Creation) -> None: ...

    def commit(self, ledger: Ledger) -> Awaitable[None]: ...

    def hand_in(self, ledger: Ledger) -> Commit: ...

    def put_off(self) -> Awaitable[None]:
        """Leave what was added for a later commit; now and then other tasks get their turn, as while one goes on."""
        ...


class Commit(Protocol):
    """A commit that was asked for."""

    def wait(self) -> Awaitable[None]:
        """Wait until it has ended; raises as `Journal.commit` does."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether it has ended already, so that waiting for it does not take any time."""
        ...

    async def attend(self) -> None:
        """Wait until it has ended, whatever happens to the caller, and however it ends."""
        ...

    def when_broken(self, tell: Callable[[BaseException], None]) -> None:
        """Have `tell` called with what broke it, should it fail."""
        ...


class NullJournal:
    """Keeps nothing: for dry runs, and with checkpoints switched off."""

    is_over = True

    def __init__(self) -> None:
        self._turns = _Turns()

    async def create(self, creation: Creation) -> None:
        creation.claim = Claim(creation.run.run_id, 0, 1, 1)

    def commit(self, ledger: Ledger) -> Awaitable[None]:
        return self.hand_in(ledger).wait()

    def hand_in(self, ledger: Ledger) -> Commit:
        """Forget what the ledger holds."""
        ledger.discard()
        return self

    async def attend(self) -> None:
        """What keeps nothing has ended."""

    def when_broken(self, tell: Callable[[BaseException], None]) -> None:
        """What keeps nothing cannot fail."""

    def wait(self) -> Awaitable[None]:
        return self._turns.give()

    def put_off(self) -> Awaitable[None]:
        return self._turns.give()


class Journal:
    """Commits runs' creations and additions to a store."""

    def __init__(self, store: RunStore, clock: Clock) -> None:
        self._store = store
        self._commits_out_of_process = store.commits_out_of_process
        self._clock = clock
        self._ledgers: dict[Ledger, Gate] = {}
        self._creations: list[Creation] = []
        self._writer: Promise[None] | None = None
        self._turns = _Turns()
        self._commit_took = 0.0  # seconds, the last one
        self._waking_took = 0.0  # seconds that the event loop was at work for each of those woken last

    async def create(self, creation: Creation) -> None:
        """Store a new run, and put the right to commit to it into `creation`.

        Raises:
            CommitFailed: The store has a problem.

        Cancellation:
            Raised only after the store has answered; the run may have been created.
        """
        self._creations.append(creation)
        self._wake()
        await creation.gate.wait()

    def commit(self, ledger: Ledger) -> Awaitable[None]:
        """Commit what the ledger holds, together with whatever else waits.

        Raises:
            CommitFailed: The run belongs to somebody else, or the store has a problem.

        Cancellation:
            Raised only after the commit has ended, and what was in the ledger is committed.
        """
        return self.hand_in(ledger).wait()

    def hand_in(self, ledger: Ledger) -> Gate:
        """Have what the ledger holds committed; the gate is passed, or broken, once that has ended."""
        gate = self._ledgers.get(ledger)
        if gate is None:
            gate = self._ledgers[ledger] = Gate()
            self._wake()
        return gate

    def put_off(self) -> Awaitable[None]:
        """Now and then other tasks get their turn."""
        return self._turns.give()

    def _wake(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = spawn(self._write(), "spine_async journal")
            self._writer.add_done_callback(self._check_left)

    def _check_left(self, writer: Promise[None]) -> None:
        """A loop being torn down may cancel a writer before it begins; what waits for it needs another."""
        if self._creations or self._ledgers:
            self._wake()

    async def _write(self) -> None:
        while self._creations or self._ledgers:
            waiting = await self._write_group()
            if self._ledgers:
                wake(waiting)
            else:  # whoever is woken now may be back at once with the next step
                await self._wake_and_see(waiting)

    async def _wake_and_see(self, waiting: list[Promise[None]]) -> None:
        """Wake those who waited, or half of them, and let them have their turn; then the others."""
        first = len(waiting) // 2 if self._is_worth_halving(len(waiting)) else len(waiting)
        began = time.perf_counter()
        wake(waiting[:first])
        try:
            await next_turn()
        finally:
            wake(waiting[first:])
        self._waking_took = (time.perf_counter() - began) / max(1, first)

    def _is_worth_halving(self, count: int) -> bool:
        """Whether to commit what one half comes to while the other half is at work."""
        if count < _FEW or not self._commits_out_of_process:
            return False
        return 2 * count * self._waking_took > self._commit_took

    async def _write_group(self) -> list[Promise[None]]:
        """Commit what waits; the promises of those who waited for it."""
        waiting: list[Promise[None]] = []
        creations, self._creations = self._creations, []
        ledgers, self._ledgers = self._ledgers, {}
        try:
            await self._write_creations(creations, waiting)
            if ledgers:
                wake(waiting)
                waiting.clear()
                await self._write_ledgers(ledgers, waiting)
        except BaseException as exc:
            error = CommitFailed(_as_store_error(exc))
            for ledger in ledgers:
                ledger.take_back()
            for gate in (*(each.gate for each in creations), *ledgers.values()):
                gate.end(error)
            if not isinstance(exc, Exception):
                wake(waiting)
                raise
        return waiting

    async def _write_creations(self, creations: list[Creation], waiting: list[Promise[None]]) -> None:
        if creations:
            runs = [each.run for each in creations]
            claims = await insist(lambda: in_another_turn(self._store.create(runs)))
            for creation, claim in zip(creations, claims, strict=True):
                creation.claim = claim
                waiting += creation.gate.close()

    async def _write_ledgers(self, ledgers: dict[Ledger, Gate], waiting: list[Promise[None]]) -> None:
        at, mark = self._clock.now(), new_mark()
        changes = [ledger.draft(at, mark) for ledger in ledgers]
        began = time.perf_counter()
        outcomes = await self._committed(changes)
        self._commit_took = time.perf_counter() - began
        committed = CommitOutcome.COMMITTED
        for (ledger, gate), change, outcome in zip(ledgers.items(), changes, outcomes, strict=True):
            if outcome is committed:
                ledger.confirm(change)
                waiting += gate.close()
            else:
                ledger.take_back()
                error = outcome if isinstance(outcome, StoreError) else LeaseLostError(change.run_id)
                waiting += gate.close(CommitFailed(error))

    async def _committed(self, changes: list[RunChange]) -> list[CommitOutcome | StoreError]:
        """What became of each change; one that the store refuses as a record spoils nothing for the others."""
        try:
            return [*await insist(lambda: in_another_turn(self._store.commit(changes)))]
        except StoreUnavailableError:
            raise
        except StoreError as exc:
            if len(changes) == 1:
                return [exc]
            return [outcome for change in changes for outcome in await self._committed([change])]


class _Turns:
    """Gives other tasks their turn now and then."""

    def __init__(self) -> None:
        self._given_mono = 0.0

    async def give(self) -> None:
        now = time.monotonic()
        if now - self._given_mono >= _TURN:
            self._given_mono = now
            await anyio.lowlevel.checkpoint()


class Creation:
    """A run waiting to be created.

    Attributes:
        claim: The right to commit to it once it is stored; None where its id is taken.
    """

    def __init__(self, run: NewRun) -> None:
        self.run = run
        self.claim: Claim | None = None
        self.gate = Gate()


def _as_store_error(exc: BaseException) -> StoreError:
    if isinstance(exc, StoreError):
        return exc
    if isinstance(exc, SpineError):
        return StoreError(str(exc))
    told = StoreUnavailableError(f"the commit did not end as it should: {type(exc).__name__}: {exc}")
    told.__cause__ = exc
    return told
