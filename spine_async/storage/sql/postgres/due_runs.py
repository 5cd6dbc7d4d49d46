"""Claims of ready runs by workers, and the states of runs, as functions of an asyncpg connection."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.due import DueRequest, DueRun, RunState
from spine_async._model.run_claim import Claim
from spine_async._model.status import RunStatus
from spine_async.errors import CorruptRecordError
from spine_async.storage.boot_clock import seconds_until
from spine_async.storage.sql.postgres import due_statements
from spine_async.storage.sql.postgres.clock import boot_now
from spine_async.storage.sql.schema.rows import RUN_COLUMNS, read_run

if TYPE_CHECKING:
    import asyncpg

    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]
    Record: TypeAlias = asyncpg.Record

_log = logging.getLogger("spine_async")

_MAX_ROUNDS = 4
_WIDER = 4
_SPARE = 20  # candidates beyond the limit, for those that another worker is just claiming
_COLUMNS = (*RUN_COLUMNS, "is_leased")


async def claim_due(driver: Driver, request: DueRequest) -> list[DueRun]:
    """Claim ready runs, and return those again that an earlier attempt of the request has claimed."""
    if request.limit <= 0 or not request.workflows:
        return []
    records, earlier = await _claim_rounds(driver, request)
    claimed = [run for each in records if (run := await _claimed(driver, request, each)) is not None]
    if not earlier:
        return claimed
    new = {each["id"] for each in records}
    again = await driver.fetch(due_statements.CLAIMED_EARLIER, request.owner, request.token)
    return [_due_run(each, each["epoch"]) for each in again if each["id"] not in new] + claimed


async def claimed_earlier(driver: Driver, request: DueRequest) -> list[DueRun]:
    """The runs that an earlier attempt of the request has claimed."""
    records = await driver.fetch(due_statements.CLAIMED_EARLIER, request.owner, request.token)
    return [_due_run(each, each["epoch"]) for each in records]


async def claim_chosen(driver: Driver, request: DueRequest, keys: Sequence[int]) -> list[DueRun]:
    """Claim those of the runs that are ready and not locked."""
    if not keys:
        return []
    known = (list(request.workflows), list(request.workflows.values()))
    lease = (request.owner, request.token, list(keys))
    records = await driver.fetch(due_statements.CLAIM_CHOSEN, *lease, *known, request.at, request.ttl)
    return [run for each in records if (run := await _claimed(driver, request, each)) is not None]


async def states(driver: Driver, run_ids: Sequence[str]) -> list[RunState]:
    """The states of the runs that are stored."""
    now = await boot_now()
    records = await driver.fetch(due_statements.STATES, list(set(run_ids)), now.boot, now.seconds)
    return [_state(each) for each in records]


def _state(record: Record) -> RunState:
    with CorruptionGuard(record["run_id"]):
        status = RunStatus(record["status"])
    flags = {"is_leased": record["is_leased"], "is_due": bool(record["is_due"]), "next_seq": record["next_seq"]}
    return RunState(record["run_id"], status, record["epoch"], record["owner"], **flags)


async def _claim_rounds(driver: Driver, request: DueRequest) -> tuple[list[Record], int]:
    """The claimed runs as they were before, and how many runs the token had claimed before.

    If other workers were claiming the first candidates, the next round looks at more of them.
    """
    workflows, versions = list(request.workflows), list(request.workflows.values())
    queues = ["", *(queue for queue in request.queues if queue)]
    places = (workflows, versions, request.at, request.ttl, queues)
    claimed: list[Record] = []
    window, before = request.limit + _SPARE, 0
    for number in range(_MAX_ROUNDS):
        fixed = (request.owner, request.token, request.limit, *places)
        records = await driver.fetch(due_statements.CLAIM_DUE, *fixed, window)
        earlier, seen = records[0]["earlier"], records[0]["seen"]
        before = earlier if number == 0 else before
        claimed += [each for each in records if each["id"] is not None]
        if before + len(claimed) >= request.limit or seen < window:
            break
        window *= _WIDER
    return claimed, before


async def _claimed(driver: Driver, request: DueRequest, record: Record) -> DueRun | None:
    """The claimed run; None if a column holds an invalid value. Such a run is due no longer."""
    try:
        due = _due_run(record, record["epoch"] + 1)
    except CorruptRecordError as exc:
        _log.error("%s; the run is not executed until it is resumed", exc)
        await driver.execute(due_statements.SET_ASIDE, record["id"], request.token, record["status"])
        return None
    if record["due_boot"] is None:
        return due
    return replace(due, due_in=seconds_until(record["due_boot"], record["due_seconds"], await boot_now()))


def _due_run(record: Record, epoch: int) -> DueRun:
    run = read_run([record[name] for name in _COLUMNS])
    return DueRun(run, Claim(run_id=run.run_id, key=record["id"], epoch=epoch, next_seq=run.next_seq))
