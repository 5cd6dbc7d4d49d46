"""Claims within the limits of queues, as functions of an asyncpg connection.

Theory of operation: a claim first looks, without a lock, whether a queue with limits has ready runs and room. Usually
one of the two is missing, and the claim takes runs of the other queues in one statement. Otherwise it locks the queues
that have both, reads their room again and the ready runs that come first, chooses, and claims what it has chosen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from spine_async._model.due import DueRequest, DueRuns
from spine_async._model.queue import Queue
from spine_async._model.queue_room import Room, soonest
from spine_async._model.run_claim import Busy, Claim, NoRoom
from spine_async.storage.sql.driver.candidates import DEPTH, Candidate, choose, hides_others, window
from spine_async.storage.sql.driver.claim_rule import Claimable, ClaimRequest, decide
from spine_async.storage.sql.postgres import due_runs, leases, queue_statements
from spine_async.storage.sql.postgres.queues import locked, record_first_claims, rooms_of

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

_SPARE = 20  # candidates beyond those that are wanted, for those whose rows are locked
_BUSY_FOR = 0.05  # seconds until another attempt, if somebody else has locked a queue for long


async def claim_due(driver: Driver, request: DueRequest) -> DueRuns:
    """Claim ready runs, and return those again that an earlier attempt of the request has claimed."""
    if request.limit <= 0 or not request.workflows:
        return DueRuns()
    limited = {each.name for each in request.limits}
    others = replace(request, limits=(), queues=request.queues - limited)
    workflows = (list(request.workflows), list(request.workflows.values()))
    waiting = {each["name"] for each in await driver.fetch(queue_statements.WAITING, sorted(limited), *workflows)}
    queues = [each for each in request.limits if each.name in waiting]
    if not queues:
        return DueRuns(await due_runs.claim_due(driver, others))
    rooms = await rooms_of(driver, queues, request.owner)
    free = [each for each in queues if rooms[each.name].free > 0]
    if not free:
        return DueRuns(await due_runs.claim_due(driver, others))
    try:
        async with locked(driver, free):
            return await _claim(driver, request, free)
    except asyncpg.LockNotAvailableError:
        return DueRuns(await due_runs.claim_due(driver, others), room_in=_BUSY_FOR)


async def claim(driver: Driver, request: ClaimRequest, queue: Queue) -> Claim | Busy | NoRoom | None:
    """Claim a given run if `claim_rule` and the limits of its queue allow it."""
    try:
        async with locked(driver, [queue]):
            state = await leases.read_state(driver, request.run_id)
            decision = decide(request, state)
            if not isinstance(decision, Claimable):
                return decision
            slot = await driver.fetchrow(queue_statements.SLOT, request.run_id)
            rooms = await rooms_of(driver, [queue], request.owner, besides=request.run_id)
            room = rooms[queue.name]
            if slot is None or not room.take(slot["queue_key"], is_new=slot["is_new"]):
                return NoRoom(room.room_in)
            answer = await leases.claim(driver, request)
            if isinstance(answer, Claim) and slot["is_new"]:
                await record_first_claims(driver, [queue], {queue.name: 1})
            return answer
    except asyncpg.LockNotAvailableError:
        return NoRoom(_BUSY_FOR)


async def _claim(driver: Driver, request: DueRequest, free: Sequence[Queue]) -> DueRuns:
    """Claim runs of these queues, which are locked, and of those without limits."""
    earlier = await due_runs.claimed_earlier(driver, request)
    rooms = await rooms_of(driver, free, request.owner)
    wanted = request.limit - len(earlier)
    names = {each.name for each in request.limits}
    unlimited = ["", *(each for each in request.queues if each and each not in names)]
    candidates = set(await _read(driver, queue_statements.CANDIDATES, request, unlimited, wanted + _SPARE))
    for name, room in rooms.items():
        if room.free > 0 and wanted > 0:
            candidates |= await _limited(driver, request, name, room, min(wanted, room.free))
    chosen = choose(candidates, rooms, wanted)
    claimed = await due_runs.claim_chosen(driver, request.at_now(), chosen)
    begun = Counter(each.run.queue for each in claimed if each.run.epoch == 0)
    await record_first_claims(driver, free, begun)
    return DueRuns([*earlier, *claimed], room_in=soonest(rooms.values()))


async def _limited(driver: Driver, request: DueRequest, queue: str, room: Room, wanted: int) -> set[Candidate]:
    """Ready runs of a queue with limits, among which are the first ones for which there is room."""
    size = window(room, wanted)
    parts = await _parts(driver, queue_statements.CANDIDATES, request, queue, size)
    if room.new < wanted:  # those that continue may be behind new runs
        parts += await _parts(driver, queue_statements.CONTINUING, request, queue, size)
    if room.per_key is None or not any(hides_others(part, size, room, wanted) for part in parts):
        return set().union(*parts)
    known = (list(request.workflows), list(request.workflows.values()))
    by_key = (*known, queue, min(wanted, room.per_key), room.full_keys, size)
    with_key = [_candidate(each) for each in await driver.fetch(queue_statements.BY_KEY, *by_key)]
    return {*with_key, *await _read(driver, queue_statements.WITHOUT_KEY, request, [queue], DEPTH)}


async def _parts(driver: Driver, statement: str, request: DueRequest, queue: str, size: int) -> list[list[Candidate]]:
    """The first ready runs of the queue of each workflow."""
    known = (list(request.workflows), list(request.workflows.values()))
    by_workflow: defaultdict[str, list[Candidate]] = defaultdict(list)
    for each in await driver.fetch(statement, *known, [queue], size):
        by_workflow[each["workflow_name"]].append(_candidate(each))
    return list(by_workflow.values())


async def _read(
    driver: Driver, statement: str, request: DueRequest, queues: Sequence[str], limit: int
) -> list[Candidate]:
    known = (list(request.workflows), list(request.workflows.values()))
    return [_candidate(each) for each in await driver.fetch(statement, *known, list(queues), limit)]


def _candidate(record: asyncpg.Record) -> Candidate:
    turn = record["turn"] if record["turn"] is not None else 0.0
    return Candidate(record["priority"], turn, record["id"], record["queue"], record["queue_key"], record["is_new"])
