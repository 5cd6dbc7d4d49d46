"""Random sequences of store operations, compared with a small model."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from spine_async._model.run_change import Release, RunChange, RunEnd
from spine_async._model.run_claim import Busy, Claim
from spine_async._model.run_row import DueTime
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome, DueRunStore, RunStore, keeps_due_runs
from spine_async.storage import MemoryRunStore, SqlRunStore
from spine_async.testing.conformance.due_rows import due_run, request
from spine_async.testing.conformance.rows import change, event, moment, moved, new_run, visit
from tests.chaos.size import SEED, report, size

ResultT = TypeVar("ResultT")
RUNS = st.sampled_from(["a", "b"])
WORKERS = st.sampled_from(["w1", "w2", "w3"])
ENDS = {"complete": RunStatus.COMPLETED, "fail": RunStatus.FAILED, "stop": RunStatus.STOPPED}
EVENTS = {
    RunStatus.COMPLETED: "workflow_completed",
    RunStatus.FAILED: "workflow_failed",
    RunStatus.STOPPED: "workflow_stopped",
}


@dataclass
class Modelled:
    """The expected state of one run.

    Attributes:
        held: Whether the owner's lease holds.
        ready: Whether a worker may claim it: its time has come, or a sweep found that its owner is gone.
        claims: All claims so far, the current one included, by epoch.
    """

    owner: str | None
    epoch: int = 1
    next_seq: int = 2
    status: RunStatus = RunStatus.RUNNING
    held: bool = True
    ready: bool = False
    progress: int = 0
    asked: str | None = None
    paths: list[str] = field(default_factory=list)
    claims: dict[int, Claim] = field(default_factory=dict)

    @property
    def is_under_way(self) -> bool:
        return not self.status.is_final

    def can_commit(self, epoch: int) -> bool:
        """Whether the claim of this epoch holds the run, with or without a lease."""
        return epoch == self.epoch and self.owner is not None and self.is_under_way

    def become_claimed(self, worker: str, claim: Claim, *, keeps_waiting: bool = False) -> None:
        """Expect what a claim changes: only an owner that was lost while the run was at work counts.

        A claim by a worker keeps the status of a run that waits.
        """
        is_lost = self.owner is not None and self.status is RunStatus.RUNNING
        self.progress = self.progress + is_lost if self.is_under_way else 1
        self.owner, self.epoch, self.held, self.ready, self.asked = worker, self.epoch + 1, True, False, None
        self.status = RunStatus.WAITING if keeps_waiting and self.status is RunStatus.WAITING else RunStatus.RUNNING
        assert (claim.epoch, claim.next_seq) == (self.epoch, self.next_seq)
        self.claims[self.epoch] = claim


class ProtocolMachine(RuleBasedStateMachine):
    """Calls one store; each rule checks the result against the model."""

    counts: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = self.make()
        self.runs: dict[str, Modelled] = {}
        self.ghosts: list[Claim] = []
        self.commits = 0

    def make(self) -> RunStore:
        return MemoryRunStore()

    @property
    def due_runs(self) -> DueRunStore:
        assert keeps_due_runs(self.store)
        return self.store

    def do(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        name = getattr(work, "__name__", "")
        self.counts[name] = self.counts.get(name, 0) + 1
        return self.loop.run_until_complete(work)

    @rule(run=RUNS, worker=WORKERS)
    def start(self, run: str, worker: str) -> None:
        (claim,) = self.do(self.store.create([replace(new_run(run), owner=worker)]))
        assert (claim is None) == (run in self.runs)
        if claim is not None:
            self.runs[run] = Modelled(worker, claims={1: claim})

    @rule(run=RUNS)
    def enqueue(self, run: str) -> None:
        (claim,) = self.do(self.store.create([due_run(run, queue="default")]))
        assert (claim is None) == (run in self.runs)
        if claim is not None:
            claims = {0: claim}
            self.runs[run] = Modelled(
                None, epoch=0, next_seq=1, status=RunStatus.PENDING, held=False, ready=True, claims=claims
            )

    @rule(gone=st.sets(WORKERS), lapsed=st.sets(WORKERS))
    def sweep(self, gone: set[str], lapsed: set[str]) -> None:
        found = self.do(self.due_runs.sweep(gone, lapsed))
        owned = [each for each in self.runs.values() if each.owner is not None and each.is_under_way]
        for each in owned:
            each.ready = each.ready or each.owner in gone or (each.owner in lapsed and not each.held)
        busy = [each for each in owned if not each.ready]
        ended = {each.owner for each in busy if not each.held}
        assert found.owners == {each.owner: each.owner in ended for each in busy}

    @rule(worker=WORKERS, limit=st.sampled_from([1, 10]))
    def work(self, worker: str, limit: int) -> None:
        claimed = self.do(self.due_runs.claim_due(request(owner=worker, limit=limit, queues=frozenset({"default"}))))
        ready = {run for run, model in self.runs.items() if model.ready and model.is_under_way}
        chosen = {each.run.run_id for each in claimed}
        assert chosen <= ready
        assert len(chosen) == len(claimed) == min(limit, len(ready))
        for each in claimed:
            assert (each.run.status, each.run.epoch) == (
                self.runs[each.run.run_id].status,
                self.runs[each.run.run_id].epoch,
            )
            self.runs[each.run.run_id].become_claimed(worker, each.claim, keeps_waiting=True)

    @precondition(lambda self: self.runs)
    @rule(
        data=st.data(),
        status=st.sampled_from([RunStatus.PENDING, RunStatus.WAITING]),
        is_due=st.booleans(),
        counts=st.booleans(),
    )
    def give_up(self, data: st.DataObject, status: RunStatus, is_due: bool, counts: bool) -> None:
        """Release a run: due now, or by a message only."""
        run, claim = self._chosen(data)
        model = self.runs[run]
        due = DueTime(datetime.now(UTC), 0.0) if is_due else None
        is_released = self.do(self.due_runs.release_run(claim, Release(status=status, due=due, counts=counts)))
        assert is_released == model.can_commit(claim.epoch)
        if is_released:
            model.owner, model.held, model.status, model.ready = None, False, status, is_due
            model.progress += counts

    @rule(run=RUNS, worker=WORKERS, knows=st.booleans())
    def claim(self, run: str, worker: str, knows: bool) -> None:
        model = self.runs.get(run)
        over = model.epoch if model is not None and knows else None
        answer = self.do(self.store.claim(run, worker, None, ttl=60, over_epoch=over))
        if model is None or model.status is RunStatus.COMPLETED:
            assert answer is None
        elif model.held and model.owner not in {None, worker} and not knows:
            assert isinstance(answer, Busy)
            assert (answer.owner, answer.epoch) == (model.owner, model.epoch)
        else:
            assert isinstance(answer, Claim)
            model.become_claimed(worker, answer)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), late=st.booleans())
    def step(self, data: st.DataObject, late: bool) -> None:
        run, claim = self._chosen(data)
        if late:
            claim = replace(claim, next_seq=max(1, claim.next_seq - 1))
        number = claim.next_seq
        made = change(claim, [visit(f"s{self.commits}", number + 1)], [event("noted", number)])
        self._commit(run, claim, made, f"s{self.commits}")

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), how=st.sampled_from(sorted(ENDS)))
    def end(self, data: st.DataObject, how: str) -> None:
        run, claim = self._chosen(data)
        last = event(EVENTS[ENDS[how]], claim.next_seq)
        self._commit(run, claim, change(claim, (), [last], end=RunEnd(ENDS[how], moment(1), stop_reason="r")), None)

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data())
    def step_of_a_deleted_run(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.ghosts))
        self.commits += 1
        made = change(claim, [visit(f"ghost{self.commits}", claim.next_seq)])
        assert self.do(self.store.commit([made])) == [CommitOutcome.FENCED]

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), expires=st.booleans())
    def renew(self, data: st.DataObject, expires: bool) -> None:
        """Renew the lease; a negative duration ends it."""
        run, claim = self._chosen(data)
        model = self.runs[run]
        (renewal,) = self.do(self.store.renew([claim], -1.0 if expires else 60.0))
        assert renewal.is_held == model.can_commit(claim.epoch)
        if renewal.is_held:
            assert renewal.stop_reason == model.asked
            model.held, model.ready = not expires, False

    @rule(run=RUNS)
    def cancel(self, run: str) -> None:
        model = self.runs.get(run)
        assert self.do(self.store.request_stop(run, "enough")) == (model is not None and model.is_under_way)
        if model is not None and model.is_under_way:
            model.asked = "enough"

    @rule(run=RUNS)
    def delete(self, run: str) -> None:
        assert self.do(self.store.delete([run])) == ([run] if run in self.runs else [])
        if run in self.runs:
            self.ghosts += self.runs.pop(run).claims.values()

    @rule()
    def crash(self) -> None:
        """Close all connections, as the death of the process does; a store in memory has none."""
        self.do(self.store.close())

    @invariant()
    def as_modelled(self) -> None:
        for run in ("a", "b"):
            stored, model = self.loop.run_until_complete(self.store.load(run)), self.runs.get(run)
            assert (stored is None) == (model is None)
            if stored is None or model is None:
                continue
            found = (stored.status, stored.epoch, stored.next_seq, stored.claims_since_progress, stored.is_leased)
            is_leased = model.held and model.is_under_way
            assert found == (model.status, model.epoch, model.next_seq, model.progress, is_leased)
            paths = [row.path for row in self.loop.run_until_complete(self.store.visits(run))]
            assert paths == model.paths
            events = self.loop.run_until_complete(self.store.events(run, 0, 10_000))
            assert [each.seq for each in events] == list(range(1, model.next_seq))

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()

    def _chosen(self, data: st.DataObject) -> tuple[str, Claim]:
        run = data.draw(st.sampled_from(sorted(self.runs)))
        claims = self.runs[run].claims
        epoch = data.draw(st.sampled_from([max(claims), *sorted(claims)]))
        return run, claims[epoch]

    def _commit(self, run: str, claim: Claim, made: RunChange, path: str | None) -> None:
        model = self.runs[run]
        self.commits += 1
        commit_id = f"m{self.commits}"
        made = replace(
            made, commit_id=commit_id, visits=tuple(replace(row, commit_id=commit_id) for row in made.visits)
        )
        (outcome,) = self.do(self.store.commit([made]))
        is_mine = claim.next_seq == model.next_seq and model.can_commit(claim.epoch)
        assert outcome is (CommitOutcome.COMMITTED if is_mine else CommitOutcome.FENCED)
        if not is_mine:
            return
        model.next_seq = made.next_seq
        model.claims[model.epoch] = moved(claim, made)
        if path is not None:
            model.paths.append(path)
            model.progress = 0
        if made.end is not None:
            model.status, model.owner, model.held, model.ready = made.end.status, None, False, False


class SqliteMachine(ProtocolMachine):
    def make(self) -> RunStore:
        self.folder = tempfile.TemporaryDirectory()
        return SqlRunStore(f"sqlite+aiosqlite:///{Path(self.folder.name) / 'runs.db'}")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


@pytest.mark.parametrize(
    ("machine", "short", "steps"), [(ProtocolMachine, 60, 50), (SqliteMachine, 8, 30)], ids=["memory", "sqlite"]
)
@pytest.mark.allow_blocking  # the machine runs its own event loop, and may block between two calls
def test_nothing_differs_from_the_model(machine: type[ProtocolMachine], short: int, steps: int) -> None:
    examples = size(short, 500)
    machine.counts = {}
    options = settings(
        max_examples=examples,
        stateful_step_count=size(steps, 50),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(SEED)(machine), settings=options)
    report(f"state machine[{machine.__name__}]", n=examples, calls=machine.counts)
