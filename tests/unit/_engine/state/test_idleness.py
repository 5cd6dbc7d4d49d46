"""When a run only waits, and until when."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta

from spine_async._engine.state.idleness import Idleness, Wait
from spine_async._model.run_row import DueTime
from tests.unit._engine.builders import NOW


def in_seconds(seconds: float) -> DueTime:
    return DueTime(NOW + timedelta(seconds=seconds), seconds)


def watched() -> tuple[Idleness, list[bool]]:
    """An idleness, and for each of its calls of `on_idle` whether it was idle then."""
    idleness, calls = Idleness(), []
    idleness.on_idle = lambda: calls.append(idleness.idle is not None)
    return idleness, calls


def test_a_run_at_work_is_not_idle() -> None:
    assert Idleness().idle is None


def test_a_run_whose_only_task_waits_is_idle_until_the_wait_ends() -> None:
    idleness, calls = watched()
    wait = Wait(in_seconds(5))
    with idleness.waiting(wait):
        idle = idleness.idle
        assert idle is not None
        assert (idle.waits, idle.due, idle.awaits_messages) == ((wait,), in_seconds(5), False)
        assert calls == [True]
    assert idleness.idle is None
    assert calls == [True]


def test_nobody_needs_to_be_told_of_idleness() -> None:
    idleness = Idleness()
    with idleness.waiting(Wait(None)):
        assert idleness.idle is not None


def test_one_task_at_work_keeps_a_run_busy() -> None:
    idleness, calls = watched()
    idleness.begin_task()
    with idleness.waiting(Wait(in_seconds(5))):
        assert idleness.idle is None
        idleness.end_task()
        assert idleness.idle is not None
    assert calls == [True]


def test_a_task_that_waits_for_others_of_its_run_is_not_at_work() -> None:
    idleness, calls = watched()
    idleness.begin_task()
    with idleness.waiting_for_tasks():
        assert idleness.idle is None
        with idleness.waiting(Wait(in_seconds(5))):
            assert idleness.idle is not None
        assert idleness.idle is None
    idleness.end_task()
    assert idleness.idle is None
    assert calls == [True]


def test_a_run_without_any_wait_is_not_idle_although_no_task_is_at_work() -> None:
    """Its tasks have ended: the one that waited for them is about to continue."""
    idleness, calls = watched()
    with idleness.waiting_for_tasks():
        assert idleness.idle is None
    assert calls == [False]


def test_the_first_wait_that_ends_counts() -> None:
    idleness = Idleness()
    with ExitStack() as waits:
        for seconds in (7.0, 3.0, 5.0):
            idleness.begin_task()
            waits.enter_context(idleness.waiting(Wait(in_seconds(seconds))))
        idleness.begin_task()
        waits.enter_context(idleness.waiting(Wait(None, awaits_messages=True)))
        idleness.end_task()
        idle = idleness.idle
        assert idle is not None
        assert (idle.due, idle.awaits_messages, len(idle.waits)) == (in_seconds(3.0), True, 4)


def test_a_run_that_waits_for_messages_only_is_due_at_no_time() -> None:
    idleness = Idleness()
    with idleness.waiting(Wait(None, awaits_messages=True)):
        idle = idleness.idle
        assert idle is not None
        assert (idle.due, idle.awaits_messages) == (None, True)


def test_equal_waits_are_counted_one_by_one() -> None:
    idleness = Idleness()
    idleness.begin_task()
    with idleness.waiting(Wait(in_seconds(5))):
        with idleness.waiting(Wait(in_seconds(5))):
            idle = idleness.idle
            assert idle is not None
            assert len(idle.waits) == 2
        assert idleness.idle is None


def test_a_wait_that_ended_has_moved_the_run() -> None:
    idleness = Idleness()
    idleness.begin_task()
    with idleness.waiting(Wait(in_seconds(5))):
        with idleness.waiting(Wait(in_seconds(1))):
            idle = idleness.idle
            assert idle is not None
            assert not idleness.has_moved_since(idle)
        assert idleness.has_moved_since(idle)


def test_a_wait_that_was_cancelled_has_not_moved_the_run() -> None:
    idleness = Idleness()
    waiting = idleness.waiting(Wait(in_seconds(5)))
    waiting.__enter__()
    idle = idleness.idle
    cancelled = TimeoutError()
    assert not waiting.__exit__(TimeoutError, cancelled, None)
    assert idle is not None
    assert not idleness.has_moved_since(idle)
    assert idleness.idle is None


def test_a_run_that_was_busy_meanwhile_differs_from_what_it_was() -> None:
    idleness, wait = Idleness(), Wait(in_seconds(5))
    with idleness.waiting(wait):
        first = idleness.idle
        idleness.begin_task()
        idleness.end_task()
        again = idleness.idle
    assert first is not None
    assert again is not None
    assert (first.waits, first.activity) == (again.waits, again.activity)
    assert first.changes != again.changes
