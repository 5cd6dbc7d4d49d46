"""Definitions of schedules, and the decisions about their firings."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest

from spine_async import DefinitionError, Schedule, Step, Workflow
from spine_async._model.schedule_state import MAX_WAITING, Decision, StoredSchedule, decide

FLOW = Workflow("flow", [Step.lambda_("step", lambda context, config: {})])
NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def schedule(**options: Any) -> Schedule:
    return Schedule("s", FLOW, **({"every": 600} | options))


def stored(decided_at: datetime = NOON, **values: Any) -> StoredSchedule:
    plain = StoredSchedule(
        name="s",
        workflow_name="flow",
        timing="{}",
        queue="default",
        overlap="skip",
        params="{}",
        registered_at=NOON,
        version=1,
        decided_at=decided_at,
        is_paused=False,
        last_run_id=None,
        last_fired_at=None,
        is_busy=False,
        waiting=(),
    )
    return replace(plain, **values)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("", {"every": 1}, "must not be empty"),
        ("a@b", {"every": 1}, "must not contain @"),
        ("x" * 161, {"every": 1}, "too long"),
        ("s", {}, "give either cron= or every="),
        ("s", {"every": 1, "cron": "@daily"}, "give either cron= or every="),
        ("s", {"every": 0}, "at least 0.01"),
        ("s", {"every": "often"}, "every"),
        ("s", {"cron": 5}, "cron is of type int"),
        ("s", {"cron": "x"}, "invalid cron expression 'x'"),
        ("s", {"every": 1, "overlap": "sometimes"}, "'skip', 'queue' or 'allow'"),
        ("s", {"every": 1, "timezone": "Europe/Nowhere"}, "timezone is 'Europe/Nowhere', which is not known"),
        ("s", {"every": 1, "timezone": "../etc/passwd"}, "which is not known"),
        ("s", {"every": 1, "queue": ""}, "invalid queue"),
        ("s", {"every": 1, "params": [1]}, "params is of type list"),
        ("s", {"every": 1, "catch_up": -1}, "catch_up"),
        ("s", {"every": 1, "workflow": "a\0b"}, "invalid workflow"),
        ("s", {"every": 1, "workflow": "w" * 201}, "too long"),
        ("s", {"every": 1, "workflow": " "}, "must not be empty"),
    ],
)
def test_an_invalid_definition_is_refused(name: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        Schedule(**{"name": name, "workflow": FLOW, **options})


def test_a_workflow_without_a_name_is_refused() -> None:
    with pytest.raises(DefinitionError, match="no workflow with a name"):
        Schedule("s", Workflow(steps=FLOW.steps), every=1)


def test_next_gives_aware_times_in_the_zone_of_the_schedule() -> None:
    first, second = schedule(every=None, cron="0 9 * * *", timezone="Europe/Berlin").next(2, after=NOON)
    assert first.isoformat() == "2026-01-11T09:00:00+01:00"
    assert second - first == timedelta(days=1)
    (soon,) = schedule().next()
    assert timedelta() < soon - datetime.now(UTC) <= timedelta(seconds=600)
    with pytest.raises(DefinitionError, match="n is 0"):
        schedule().next(0)


class _OwnZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        raise RuntimeError

    def dst(self, moment: datetime | None) -> None:
        return None

    def tzname(self, moment: datetime | None) -> None:
        return None


@pytest.mark.parametrize("options", [{}, {"every": None, "cron": "0 9 29 2 *"}, {"every": None, "cron": "*/5 * * * *"}])
@pytest.mark.parametrize(
    ("moment", "problem"),
    [
        (NOON.replace(tzinfo=None), "has no time zone"),
        (NOON.replace(tzinfo=_OwnZone()), "cannot be expressed in UTC"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), "cannot be expressed in UTC"),
        (datetime.max.replace(tzinfo=UTC), "within the years 1 to 9999"),
        (NOON.date(), "is of type date"),
        (NOON.isoformat(), "is of type str"),
        (NOON.timestamp(), "is of type float"),
    ],
)
def test_a_moment_that_no_firing_can_follow_is_refused(options: dict[str, Any], moment: Any, problem: str) -> None:
    plan = schedule(**options)
    with pytest.raises(DefinitionError, match=f"schedule 's'.*{problem}"):
        plan.next(after=moment)
    with pytest.raises(DefinitionError, match=f"schedule 's'.*{problem}"):
        plan.after(moment)
    if "years" not in problem:
        with pytest.raises(DefinitionError, match=f"schedule 's': until.*{problem}"):
            plan.latest(NOON, moment)


@pytest.mark.parametrize("n", [-1, 10**400, 2**63, 1.0, True, "1", None])
def test_a_number_of_firings_that_cannot_be_given_is_refused(n: Any) -> None:
    with pytest.raises(DefinitionError, match=r"schedule 's': n is .* it must be an integer from 1 to 1,000,000"):
        schedule().next(n)


def test_an_interval_is_the_same_in_all_processes() -> None:
    seven = schedule(every=timedelta(minutes=7))
    moments = [each.timestamp() for each in seven.next(3, after=NOON)]
    assert [each % 420 for each in moments] == [0, 0, 0]
    assert seven.latest(NOON, NOON + timedelta(days=365)) == seven.after(NOON + timedelta(days=365)) - 7 * MINUTE


def test_the_id_of_a_firing_is_its_time_in_utc() -> None:
    berlin = schedule(every=None, cron="0 9 * * *", timezone="Europe/Berlin")
    assert berlin.run_id(berlin.after(NOON)) == "s@2026-01-11T08:00:00Z"
    assert schedule().run_id(NOON + timedelta(milliseconds=5)) == "s@2026-01-10T12:00:00.005000Z"


def test_nothing_is_decided_before_the_next_firing() -> None:
    assert decide(schedule(), stored(), NOON + 9 * MINUTE) is None


def test_a_firing_is_decided_once() -> None:
    decision = decide(schedule(), stored(), NOON + 10 * MINUTE)
    assert decision == Decision(NOON + 10 * MINUTE, (), NOON + 10 * MINUTE)
    assert decide(schedule(), stored(decision.decided_at), NOON + 10 * MINUTE) is None


def test_of_missed_firings_only_the_latest_counts() -> None:
    decision = decide(schedule(), stored(), NOON + 35 * MINUTE)
    assert decision is not None
    assert decision.fired_at == decision.decided_at == NOON + 30 * MINUTE


@pytest.mark.parametrize(("late", "fires"), [(0.0, True), (9.0, True), (59.0, True), (61.0, False)])
def test_a_firing_that_is_too_old_is_decided_but_does_not_fire(late: float, fires: bool) -> None:
    decision = decide(schedule(catch_up=60), stored(), NOON + 10 * MINUTE + timedelta(seconds=late))
    assert decision is not None
    assert decision.decided_at == NOON + 10 * MINUTE
    assert (decision.fired_at is not None, decision.skipped) == ((True, None) if fires else (False, "missed"))


def test_without_catch_up_a_firing_may_be_some_seconds_late() -> None:
    for late, fires in ((5, True), (15, False)):
        decision = decide(schedule(catch_up=0), stored(), NOON + 10 * MINUTE + timedelta(seconds=late))
        assert decision is not None
        assert (decision.fired_at is not None) is fires


@pytest.mark.parametrize(("overlap", "fires", "waits"), [("skip", 0, 0), ("queue", 0, 1), ("allow", 1, 0)])
def test_a_firing_while_the_run_before_has_not_ended(overlap: Any, fires: int, waits: int) -> None:
    decision = decide(schedule(overlap=overlap), stored(is_busy=True), NOON + 10 * MINUTE)
    assert decision is not None
    assert (int(decision.fired_at is not None), len(decision.waiting)) == (fires, waits)


def test_firings_that_wait_fire_in_order_and_before_new_ones() -> None:
    queue, waiting = schedule(overlap="queue"), (NOON - 20 * MINUTE, NOON - 10 * MINUTE)
    assert decide(queue, stored(is_busy=True, waiting=waiting), NOON) is None
    assert decide(queue, stored(is_paused=True, waiting=waiting), NOON) is None
    assert decide(queue, stored(waiting=waiting), NOON) == Decision(NOON, waiting[1:], waiting[0])
    later = decide(queue, stored(waiting=waiting), NOON + 10 * MINUTE)
    assert later == Decision(NOON + 10 * MINUTE, (waiting[1], NOON + 10 * MINUTE), waiting[0])


def test_the_number_of_waiting_firings_is_bounded() -> None:
    full = stored(is_busy=True, waiting=(NOON,) * MAX_WAITING)
    decision = decide(schedule(overlap="queue"), full, NOON + 10 * MINUTE)
    assert decision is not None
    assert (decision.skipped, len(decision.waiting)) == ("full", MAX_WAITING)


def test_a_paused_schedule_decides_without_firing() -> None:
    decision = decide(schedule(), stored(is_paused=True), NOON + 10 * MINUTE)
    assert decision == Decision(NOON + 10 * MINUTE, (), None, "paused")
