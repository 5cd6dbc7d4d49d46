"""Changes of runs whose row is locked: retried in order, while the other runs of the group go on."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from spine_async._clock import SystemClock
from spine_async._engine.commit import journal as journal_module
from spine_async._engine.commit.creation import Creation
from spine_async._engine.commit.journal import Journal
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.tasks import Latch
from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Claim
from spine_async._model.visit_row import EventRow
from spine_async.errors import LeaseLostError, StoreError, StoreUnavailableError
from spine_async.ports import CommitOutcome
from spine_async.storage import MemoryRunStore
from spine_async.testing.conformance.rows import new_run
from tests.unit._engine.builders import NOW

pytestmark = pytest.mark.anyio


class Locking(MemoryRunStore):
    """Answers for chosen runs that their row is locked, until `unlock` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.locked: set[str] = set()
        self.sent: list[tuple[str, int, str]] = []  # run, expected number, commit id
        self.waits_in_commit: anyio.Event | None = None
        self.in_commit = anyio.Event()
        self.error: Exception | None = None

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        self.in_commit.set()
        if self.waits_in_commit is not None:
            await self.waits_in_commit.wait()
        self.sent += [(each.run_id, each.expected_seq, each.commit_id) for each in changes]
        if self.error is not None and any(each.run_id in self.locked for each in changes):
            raise self.error
        free = [each for each in changes if each.run_id not in self.locked]
        outcomes = dict(zip([each.run_id for each in free], await super().commit(free), strict=True))
        return [outcomes.get(each.run_id, CommitOutcome.LOCKED) for each in changes]

    async def paths(self, run_id: str) -> list[str]:
        return [each.path for each in await self.events(run_id, 0, 1000) if each.path]


class Scene:
    """A journal over a store whose rows can be locked."""

    def __init__(self, max_lock_wait: float = 20.0) -> None:
        self.store = Locking()
        self.journal = Journal(self.store, SystemClock(), max_lock_wait=max_lock_wait)

    async def run(self, run_id: str) -> PendingWrites:
        creation = Creation(new_run(run_id))
        await self.journal.create(creation)
        assert isinstance(creation.claim, Claim)
        return PendingWrites(creation.claim, records_events=True)


def add(pending: PendingWrites, *paths: str) -> None:
    for path in paths:
        pending.add_events(EventRow("noted", path, NOW, path=path))


async def ended(latch: Latch) -> None:
    """Wait until the latch is set, but not for long; a wait for a latch itself ignores a cancellation."""
    with anyio.fail_after(5):
        while not latch.is_set:  # noqa: ASYNC110 (waiting must not depend on what is tested)
            await anyio.sleep(0.01)
    await latch.wait()


async def turns() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change contains one entry."""
    monkeypatch.setattr(journal_module, "MAX_GROUP_BYTES", 1)


async def test_the_others_go_on_and_the_identical_change_is_sent_again(scene: Scene) -> None:
    blocked, other = await scene.run("blocked"), await scene.run("other")
    scene.store.locked = {"blocked"}
    add(blocked, "b1")
    add(other, "o1")
    first, second = scene.journal.enqueue(blocked), scene.journal.enqueue(other)
    await ended(second)
    assert not first.is_set
    add(other, "o2")
    await scene.journal.commit(other)
    scene.store.locked.clear()
    await ended(first)
    assert await scene.store.paths("blocked") == ["b1"]
    assert len({sent for sent in scene.store.sent if sent[0] == "blocked"}) == 1


async def test_what_is_added_while_the_row_is_locked_is_committed_afterwards(scene: Scene) -> None:
    blocked = await scene.run("blocked")
    scene.store.locked = {"blocked"}
    add(blocked, "b1")
    first = scene.journal.enqueue(blocked)
    await turns()
    add(blocked, "b2")
    second = scene.journal.enqueue(blocked)
    assert scene.journal.enqueue(blocked) is second
    await turns()
    assert len(set(scene.store.sent)) == 1
    scene.store.locked.clear()
    await ended(second)
    assert first.is_set
    assert await scene.store.paths("blocked") == ["b1", "b2"]


async def test_what_is_enqueued_during_the_commit_waits_too(scene: Scene) -> None:
    blocked = await scene.run("blocked")
    scene.store.locked, scene.store.waits_in_commit = {"blocked"}, anyio.Event()
    add(blocked, "b1")
    first = scene.journal.enqueue(blocked)
    await scene.store.in_commit.wait()
    add(blocked, "b2")
    second = scene.journal.enqueue(blocked)
    scene.store.waits_in_commit.set()
    await anyio.sleep(0.12)
    assert len(set(scene.store.sent)) == 1, "nothing else of the run may be sent"
    scene.store.locked.clear()
    await ended(second)
    assert first.is_set
    assert await scene.store.paths("blocked") == ["b1", "b2"]


@pytest.mark.usefixtures("small_groups")
class TestPartialDrains:
    async def test_the_rest_follows_the_locked_change(self, scene: Scene) -> None:
        blocked, other = await scene.run("blocked"), await scene.run("other")
        scene.store.locked = {"blocked"}
        add(blocked, "b1", "b2", "b3")
        add(other, "o1", "o2", "o3")
        first, second = scene.journal.enqueue(blocked), scene.journal.enqueue(other)
        await ended(second)
        assert not first.is_set
        assert await scene.store.paths("blocked") == []
        scene.store.locked.clear()
        await ended(first)
        assert await scene.store.paths("blocked") == ["b1", "b2", "b3"]
        assert await scene.store.paths("other") == ["o1", "o2", "o3"]

    async def test_the_row_is_locked_after_a_part_was_committed(self, scene: Scene) -> None:
        blocked = await scene.run("blocked")
        scene.store.waits_in_commit = anyio.Event()
        add(blocked, "b1", "b2", "b3")
        first = scene.journal.enqueue(blocked)
        await scene.store.in_commit.wait()
        add(blocked, "b4")
        second = scene.journal.enqueue(blocked)
        assert second is not first
        scene.store.waits_in_commit.set()
        while not await scene.store.paths("blocked"):
            await anyio.lowlevel.checkpoint()
        scene.store.locked = {"blocked"}
        await anyio.sleep(0.12)
        committed = await scene.store.paths("blocked")
        assert committed == ["b1", "b2", "b3", "b4"][: len(committed)]
        assert len(committed) < 3
        add(blocked, "b5")
        third = scene.journal.enqueue(blocked)
        assert not first.is_set
        scene.store.locked.clear()
        await ended(first)
        await ended(second)
        await ended(third)
        assert await scene.store.paths("blocked") == ["b1", "b2", "b3", "b4", "b5"]

    async def test_a_failure_fails_all_latches_and_keeps_the_order(self) -> None:
        scene = Scene(max_lock_wait=0.1)
        blocked = await scene.run("blocked")
        scene.store.locked = {"blocked"}
        add(blocked, "b1", "b2", "b3")
        with pytest.raises(CommitFailed) as caught:
            await ended(scene.journal.enqueue(blocked))
        assert isinstance(caught.value.error, StoreUnavailableError)
        assert "another transaction has locked its row" in str(caught.value.error)
        scene.store.locked.clear()
        await scene.journal.commit(blocked)
        assert await scene.store.paths("blocked") == ["b1", "b2", "b3"]


async def test_a_run_that_was_claimed_meanwhile_fails(scene: Scene) -> None:
    blocked = await scene.run("blocked")
    scene.store.locked = {"blocked"}
    add(blocked, "b1")
    first = scene.journal.enqueue(blocked)
    await turns()
    add(blocked, "b2")
    second = scene.journal.enqueue(blocked)
    assert await scene.store.claim("blocked", "another", None, ttl=60, over_epoch=blocked.claim.epoch)
    scene.store.locked.clear()
    for latch in (first, second):
        with pytest.raises(CommitFailed) as caught:
            await ended(latch)
        assert isinstance(caught.value.error, LeaseLostError)
    assert await scene.store.paths("blocked") == []


async def test_an_error_of_a_driver_fails_the_run_without_its_message(scene: Scene) -> None:
    blocked = await scene.run("blocked")
    scene.store.locked = {"blocked"}
    add(blocked, "b1")
    first = scene.journal.enqueue(blocked)
    await turns()
    scene.store.error = ValueError("a value")
    with pytest.raises(CommitFailed) as caught:
        await ended(first)
    assert type(caught.value.error) is StoreError
    assert "a value" not in str(caught.value.error)


async def test_a_closed_loop_leaves_nothing_behind(scene: Scene) -> None:
    blocked = await scene.run("blocked")
    scene.store.locked = {"blocked"}
    add(blocked, "b1")
    first = scene.journal.enqueue(blocked)
    await turns()
    scene.journal.forget_loop()
    scene.store.locked.clear()
    await anyio.sleep(0.12)
    assert not first.is_set
    add(blocked, "b2")
    assert scene.journal.enqueue(blocked) is not first


@pytest.mark.usefixtures("small_groups")
async def test_a_reservation_does_not_wait_for_later_groups_of_the_writer(scene: Scene) -> None:
    """Its own commit has ended, and the writer commits the next group of the same queue."""
    first, other = await scene.run("first"), await scene.run("other")
    scene.store.waits_in_commit = anyio.Event()
    add(first, "f1")
    add(other, "o1")
    latch, last = scene.journal.enqueue(first), scene.journal.enqueue(other)
    await scene.store.in_commit.wait()
    scene.store.in_commit, waits = anyio.Event(), scene.store.waits_in_commit
    scene.store.waits_in_commit = anyio.Event()
    waits.set()
    await scene.store.in_commit.wait()
    assert (latch.is_set, last.is_set) == (True, False)
    async with scene.journal.reserved(first):
        assert not last.is_set
        scene.store.waits_in_commit.set()
        await ended(last)
