"""Commits of changes and releases as functions of an asyncpg connection.

A change of an ordinary step is one statement, which is one transaction. A change that releases its run, takes messages,
stores a trace context or a definition, or ends a child run has another statement. If it awaits messages, the next
statement of its transaction looks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from spine_async._model.run_change import Release, RunChange, RunEnd, end_token, ended_message
from spine_async._model.run_claim import Claim
from spine_async.ports import CommitOutcome
from spine_async.storage.boot_clock import BootTime
from spine_async.storage.sql.postgres import release_statements, statements
from spine_async.storage.sql.postgres.clock import boot_now
from spine_async.storage.sql.schema.due_columns import HELD, DueColumns, due_columns
from spine_async.storage.sql.schema.rows import escaped_text, event_values, unchanged_timestamp, visit_values

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

_Write: TypeAlias = "Callable[[Driver, Sequence[RunChange], bool], Coroutine[None, None, set[int]]]"
"""Writes the changes that pass their fences; whether runs whose rows are locked are left out; returns their keys."""


async def commit(driver: Driver, changes: Sequence[RunChange], *, skips_locked: bool) -> list[CommitOutcome]:
    """Commit the changes; waits for locked rows only for a short time, and then leaves them out."""
    special = [each for each in changes if is_special(each)]
    if not special:
        return await _commit(driver, changes, _write_steps, skips_locked=skips_locked)
    ordinary = [each for each in changes if not is_special(each)]
    outcomes = dict[int, CommitOutcome]()
    for group, write in ((ordinary, _write_steps), (special, _write_releases)):
        if group:
            found = await _commit(driver, group, write, skips_locked=skips_locked)
            outcomes.update(zip((each.key for each in group), found, strict=True))
    return [outcomes[each.key] for each in changes]


async def release(driver: Driver, claim: Claim, token: str, given: Release) -> bool:
    """Release the run without a change; whether the claim held it, or an earlier attempt with the token released it."""
    end = given.restored
    now = await boot_now()
    status = given.status.value if end is None else end.status.value
    due = _due_columns(given, now).values(unchanged_timestamp, bool)
    counts = int(given.counts and end is None)
    values = (claim.key, claim.epoch, token, status, counts, *due, *_end_values(end), given.ignores_stop)
    if given.awaits_messages and end is None:
        async with driver.transaction(isolation="read_committed"):
            is_released = await driver.fetchval(release_statements.RELEASE, *values) is not None
            await driver.execute(release_statements.WAKE_IF_SENT, [claim.key] if is_released else [])
    else:
        is_released = await driver.fetchval(release_statements.RELEASE, *values) is not None
    return is_released or bool(await _committed_earlier(driver, [(claim.key, claim.epoch, token)]))


def is_special(change: RunChange) -> bool:
    """Whether the change does what the statement of an ordinary step does not."""
    if change.release is not None or change.taken:
        return True
    return (change.traceparent or change.notified_run_id or change.definition) is not None


async def _commit(
    driver: Driver, changes: Sequence[RunChange], write: _Write, *, skips_locked: bool
) -> list[CommitOutcome]:
    if skips_locked:
        return await _commit_unlocked(driver, changes, write)
    try:
        keys = await write(driver, changes, False)
    except asyncpg.LockNotAvailableError:
        return await _commit_unlocked(driver, changes, write)
    refused = [each for each in changes if each.key not in keys]
    if refused:  # fenced, or committed by an earlier attempt
        keys |= await _committed_earlier(driver, [(each.key, each.epoch, each.commit_id) for each in refused])
    return [CommitOutcome.COMMITTED if each.key in keys else CommitOutcome.FENCED for each in changes]


async def _commit_unlocked(driver: Driver, changes: Sequence[RunChange], write: _Write) -> list[CommitOutcome]:
    """Commit the changes of runs whose rows are not locked."""
    committed = await write(driver, changes, True)
    rest = [each for each in changes if each.key not in committed]
    locked: set[int] = set()
    if rest:
        fences = zip(*((each.key, each.epoch, each.expected_seq) for each in rest), strict=True)
        locked = {record["id"] for record in await driver.fetch(statements.UNCHANGED, *fences)}
        # In this order: an earlier attempt of a change may be committed between the two queries.
        committed |= await _committed_earlier(driver, [(each.key, each.epoch, each.commit_id) for each in rest])
    return [_outcome(each.key, committed, locked) for each in changes]


def _outcome(key: int, committed: set[int], locked: set[int]) -> CommitOutcome:
    if key in committed:
        return CommitOutcome.COMMITTED
    return CommitOutcome.LOCKED if key in locked else CommitOutcome.FENCED


async def _committed_earlier(driver: Driver, changes: Sequence[tuple[int, int, str]]) -> set[int]:
    """The keys of the runs whose last change is among these, given by key, epoch and commit id."""
    records = await driver.fetch(statements.COMMITTED_EARLIER, *zip(*changes, strict=True))
    return {record["id"] for record in records}


async def write_within(driver: Driver, change: RunChange) -> bool:
    """Write a change in the transaction of the connection; whether it has passed its fence."""
    write = _write_releases if is_special(change) else _write_steps
    return change.key in await write(driver, [change], False, _PATIENCE_WITHIN)


_PATIENCE_WITHIN = "5s"  # longer than for a group: no other run waits, and an error would undo the transaction


async def _write_steps(
    driver: Driver,
    changes: Sequence[RunChange],
    skips_locked: bool,  # noqa: FBT001
    patience: str = "200ms",
) -> set[int]:
    rows, visits, events = _rows(changes)
    is_single = len(rows) == 1 and len(visits) <= 1 and len(events) <= 1 and not skips_locked
    shape = statements.CommitShape(
        is_single=is_single,
        has_visits=bool(visits),
        has_events=bool(events),
        skips_locked=skips_locked,
        patience=patience,
    )
    arguments: list[object]
    if is_single:
        arguments = [value for row in (*rows, *visits, *events) for value in row]
    else:
        arguments = [array for array in (rows, visits, events) if array]
    records = await driver.fetch(statements.commit_statement(shape), *arguments)
    return {record["id"] for record in records}


async def _write_releases(
    driver: Driver,
    changes: Sequence[RunChange],
    skips_locked: bool,  # noqa: FBT001
    patience: str = "200ms",
) -> set[int]:
    now = await boot_now()
    rows, visits, events = _rows(changes)
    shape = statements.CommitShape(
        is_single=False,
        has_visits=bool(visits),
        has_events=bool(events),
        skips_locked=skips_locked,
        patience=patience,
    )
    outcomes = zip(*(_outcome_values(each, now) for each in changes), strict=True)
    taken = [(each.key, message) for each in changes for message in each.taken]
    runs, ids = [run for run, _ in taken], [message for _, message in taken]
    notified = [each for each in changes if each.notified_run_id is not None]
    notices = [[each.key for each in notified], [each.notified_run_id for each in notified]]
    notices += [[ended_message(each.run_id) for each in notified], [end_token(each) for each in notified]]
    arguments = (rows, *outcomes, runs, ids, *notices, *(array for array in (visits, events) if array))
    text = release_statements.release_statement(shape)
    awaiting = {each.key for each in changes if each.release is not None and each.release.awaits_messages}
    if not awaiting:
        return {record["id"] for record in await driver.fetch(text, *arguments)}
    # Read committed, so that the second statement sees what was committed during the first one.
    async with driver.transaction(isolation="read_committed"):
        keys = {record["id"] for record in await driver.fetch(text, *arguments)}
        await driver.execute(release_statements.WAKE_IF_SENT, sorted(keys & awaiting))
    return keys


def _rows(changes: Sequence[RunChange]) -> tuple[list[tuple[object, ...]], ...]:
    """The rows of `CHANGE`, `STEP` and `EVENT`."""
    # Ordered by key, so that concurrent writers lock the rows of runs in the same order.
    ordered = sorted(changes, key=lambda change: change.key)
    visits = [
        visit_values(change.key, visit, unchanged_timestamp, bool) for change in ordered for visit in change.visits
    ]
    events = [event_values(change.key, event, unchanged_timestamp) for change in ordered for event in change.events]
    return [_change_values(change) for change in ordered], visits, events


def _change_values(change: RunChange) -> tuple[object, ...]:
    """Values of the row type `CHANGE`."""
    fence = (change.key, change.epoch, change.expected_seq, change.next_seq)
    commit = (change.commit_id, change.makes_progress)
    given, end = change.release, change.end
    if given is not None:
        status, end = given.status, given.restored
    else:
        status = change.status
    status = status if end is None else end.status
    return (*fence, *commit, status.value, change.at, *_end_values(end))


def _end_values(end: RunEnd | None) -> tuple[object, ...]:
    if end is None:
        return (None, None, None, None, None)
    return (end.at, end.error_step, escaped_text(end.error), end.error_category, escaped_text(end.stop_reason))


def _outcome_values(change: RunChange, now: BootTime) -> tuple[object, ...]:
    """The outcome of the run, in the order of the arrays of `release_statement`."""
    given = change.release
    due = HELD if given is None else _due_columns(given, now)
    keeps_owner = given is None and change.end is None
    counts = int(given is not None and given.counts)
    ignores_stop = given is not None and given.ignores_stop
    definition = _NO_DEFINITION if change.definition is None else astuple(change.definition)
    due_values = due.values(unchanged_timestamp, bool)
    return (change.key, keeps_owner, counts, *due_values, change.traceparent, ignores_stop, *definition)


_NO_DEFINITION = (None, None, None)


def _due_columns(given: Release, now: BootTime) -> DueColumns:
    if given.due is None or given.restored is not None:
        return HELD
    return due_columns(given.due, datetime.now(UTC), now.boot, now.seconds, was_started=True)
