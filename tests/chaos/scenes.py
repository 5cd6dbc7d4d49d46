"""Short scenes of the protocol, on any store. A scene raises `Violation` if the store breaks a guarantee."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from spine_async._model.run_change import RunChange, RunEnd
from spine_async._model.run_claim import Busy, Claim
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome, RunStore
from spine_async.testing.conformance.rows import change, event, moment, moved, new_run, visit
from tests.chaos.checks import Stored, check_completed, require
from tests.chaos.fabric import Stage
from tests.chaos.failpoints import Points, WatchedStore
from tests.chaos.stories import memory_of

Look = Callable[[], Stored]
Scene = Callable[["Cast"], Awaitable[None]]


class Cast:
    """A store, and the operations of workers on it."""

    def __init__(self, store: RunStore, look: Look) -> None:
        self.stage = Stage(store, look)
        self.store = WatchedStore(store, self.stage.diary, Points(0, lambda name: None))

    def look(self) -> Stored:
        return self.stage.look()

    async def begin(self) -> tuple[Claim, RunChange]:
        """Create a run and commit one visit; returns the claim and the commit."""
        (claim,) = await self.store.create([new_run()])
        require(claim is not None, "a run with a new id was refused")
        assert claim is not None
        first = step(claim, "a")
        await self.store.commit([first])
        self.look()
        return moved(claim, first), first

    async def take_over(self, claim: Claim) -> Claim:
        """Claim the run for another worker, as if the owner were known to be dead."""
        taken = await self.store.claim("run-1", "worker-2", None, ttl=60, over_epoch=claim.epoch)
        require(isinstance(taken, Claim), f"a run whose owner is gone could not be claimed: {taken}")
        assert isinstance(taken, Claim)
        return taken


def step(claim: Claim, path: str) -> RunChange:
    """A change with one visit and one event, with a commit id that only this claim uses."""
    number = claim.next_seq
    made = change(claim, [visit(path, number + 1)], [event("noted", number, step=path)])
    commit_id = f"{claim.epoch}-{path}"
    return replace(made, commit_id=commit_id, visits=tuple(replace(row, commit_id=commit_id) for row in made.visits))


def end(claim: Claim) -> RunChange:
    number = claim.next_seq
    last = event("workflow_completed", number)
    return change(claim, (), [last], end=RunEnd(RunStatus.COMPLETED, moment(number)))


async def superseded(cast: Cast) -> None:
    """A superseded owner commits before, and again after, the new owner's commit."""
    old, _ = await cast.begin()
    new = await cast.take_over(old)
    await cast.store.commit([step(old, "b")])
    cast.look()
    mine = step(new, "b")
    await cast.store.commit([mine])
    cast.look()
    new = moved(new, mine)
    await cast.store.commit([step(replace(old, next_seq=new.next_seq), "c")])
    cast.look()


async def taken_over_in_the_middle(cast: Cast) -> None:
    """Another worker claims the run during its owner's commit."""
    old, _ = await cast.begin()

    async def other() -> None:
        new = await cast.take_over(old)
        await cast.store.commit([step(new, "c")])

    for outcome in await asyncio.gather(cast.store.commit([step(old, "b")]), other(), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
    cast.look()


async def committed_again(cast: Cast) -> None:
    """A worker sends a commit again because the reply was lost."""
    claim, first = await cast.begin()
    await cast.store.commit([first])
    cast.look()
    await cast.store.commit([replace(step(replace(claim, next_seq=first.expected_seq), "b"), commit_id="other")])
    cast.look()


async def committed_after_the_end(cast: Cast) -> None:
    """A commit arrives for a run that has completed."""
    claim, _ = await cast.begin()
    ended = end(claim)
    await cast.store.commit([ended])
    cast.look()
    await cast.store.commit([step(moved(claim, ended), "late")])
    cast.look()


async def deleted_and_created_again(cast: Cast) -> None:
    """A worker of a deleted run commits to the new run of the same id."""
    claim, _ = await cast.begin()
    await cast.store.delete(["run-1"])
    cast.stage.history.forget(["run-1"])
    new, _ = await cast.begin()
    outcomes = await cast.store.commit([step(replace(claim, next_seq=new.next_seq), "ghost")])
    require(outcomes == [CommitOutcome.FENCED], "the worker of a deleted run has committed to another run")


async def claimed_while_it_is_owned(cast: Cast) -> None:
    """Another worker claims a run whose lease is valid."""
    await cast.begin()
    answer = await cast.store.claim("run-1", "worker-2", None, ttl=60)
    require(isinstance(answer, Busy), f"a run whose lease holds was claimed: {answer}")


async def claimed_twice(cast: Cast) -> None:
    """Two workers claim the run, one after the other; the claims have different epochs."""
    claim, _ = await cast.begin()
    second = await cast.take_over(claim)
    await cast.take_over(second)
    cast.look()


async def claimed_after_it_completed(cast: Cast) -> None:
    claim, _ = await cast.begin()
    await cast.store.commit([end(claim)])
    answer = await cast.store.claim("run-1", "worker-2", None, ttl=60)
    require(answer is None, f"a completed run was claimed: {answer}")
    cast.look()


async def renewed_by_who_was_taken_over(cast: Cast) -> None:
    """A renewal tells a superseded owner that the lease is lost; a stop request does not reach the next owner."""
    old, _ = await cast.begin()
    await cast.store.request_stop("run-1", "enough")
    new = await cast.take_over(old)
    lost, held = await cast.store.renew([old, new], 60)
    require(not lost.is_held, "a superseded owner's lease was renewed")
    require(held.is_held, "the owner's lease was not renewed")
    require(held.stop_reason is None, "a stop asked of one owner reached the next")


async def created_twice(cast: Cast) -> None:
    await cast.begin()
    (again,) = await cast.store.create([new_run()])
    require(again is None, "a run id that is taken was given away again")
    cast.look()


async def died_everywhere(cast: Cast) -> None:
    """An owner dies at each failpoint in turn, and another one continues the run."""
    stage = cast.stage
    undisturbed = await stage.live("undisturbed", "short")
    require(undisturbed is not None and undisturbed.status == "completed", "an undisturbed run did not complete")
    assert undisturbed is not None
    for number in range(1, len(stage.points) + 1):
        run = f"p{number}"
        await stage.live(run, "short", die_at=number, ttl=0.000001)
        stage.look()
        result = await stage.live(run, "short")
        require(result is not None, f"{run} could not go on after a death at point {number}")
        assert result is not None
        check_completed(stage.look(), [run])
        require(memory_of(result.context) == memory_of(undisturbed.context), f"{run} ended with another context")


SCENES: tuple[Scene, ...] = (
    superseded,
    taken_over_in_the_middle,
    committed_again,
    committed_after_the_end,
    deleted_and_created_again,
    claimed_while_it_is_owned,
    claimed_twice,
    claimed_after_it_completed,
    renewed_by_who_was_taken_over,
    created_twice,
    died_everywhere,
)
