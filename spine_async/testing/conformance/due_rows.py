"""Builders of due runs, releases and messages for the tests of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypedDict, Unpack, cast

import pytest

from spine_async._model.due import Delivery, DueRequest, DueRun, NewMessage, Notice, RunState
from spine_async._model.run_change import Release, RunChange
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import DueTime, NewRun
from spine_async._model.status import RunStatus
from spine_async.ports import DueRunStore, RunStore, keeps_due_runs
from spine_async.testing.conformance.rows import change, created, moment, new_run


class DueValues(TypedDict, total=False):
    """Fields of a due run that a test may set."""

    due: DueTime | None
    queue: str
    queue_key: str | None
    priority: int
    expires_at: datetime | None
    started_by: str
    request_hash: str | None
    workflow_version: int
    workflow_name: str


class RequestValues(TypedDict, total=False):
    """Fields of a request that a test may set."""

    owner: str
    workflows: Mapping[str, int]
    queues: frozenset[str]
    limit: int
    ttl: float
    token: str


class DueStore(RunStore, DueRunStore, Protocol):
    """A store with the capability."""


def due_store(store: RunStore) -> DueStore:
    """The store, if it keeps due runs; the test is skipped otherwise."""
    if not keeps_due_runs(store):
        pytest.skip("the store keeps no due runs")
    return cast("DueStore", store)


def now() -> datetime:
    """The time of the wall clock."""
    return datetime.now(UTC)


def in_seconds(seconds: float) -> DueTime:
    """A duration from now."""
    return DueTime(now() + timedelta(seconds=seconds), seconds)


def at_seconds(seconds: float) -> DueTime:
    """A time of the wall clock, so many seconds from now."""
    return DueTime(now() + timedelta(seconds=seconds))


def due_run(run_id: str = "run-1", **values: Unpack[DueValues]) -> NewRun:
    """A run without an owner, due now."""
    fields: DueValues = {"started_by": "enqueue", **values}
    return replace(new_run(run_id), owner=None, created_at=now(), **fields)


def request(**values: Unpack[RequestValues]) -> DueRequest:
    """The request of a worker that knows `orders` up to version 3 and works on no queue."""
    fields: RequestValues = {
        "owner": "worker-9",
        "workflows": {"orders": 3},
        "queues": frozenset(),
        "limit": 10,
        "ttl": 60.0,
        **values,
    }
    return DueRequest(at=moment(1000), **fields)


async def claimed(store: DueStore, **values: Unpack[RequestValues]) -> list[DueRun]:
    """What a worker claims after a sweep."""
    await store.sweep()
    return await store.claim_due(request(**values))


def names(found: list[DueRun]) -> list[str]:
    """The ids of claimed runs, in order."""
    return [each.run.run_id for each in found]


async def parked(store: DueStore, release: Release | None = None, run_id: str = "run-1") -> Claim:
    """Create a held run, and release it with a change; the claim of the former owner."""
    claim = await created(store, new_run(run_id))
    await park(store, claim, release or Release(status=RunStatus.WAITING))
    return claim


async def park(store: DueStore, claim: Claim, release: Release) -> RunChange:
    """Commit a change without rows that releases the run."""
    made = replace(change(claim), release=release)
    assert [str(each) for each in await store.commit([made])] == ["committed"]
    return made


async def state(store: DueStore, run_id: str = "run-1") -> RunState:
    """The state of a stored run."""
    (found,) = await store.states([run_id])
    return found


def message(name: str = "approve", value: str = "true", *, run_id: str = "run-1", key: str | None = None) -> NewMessage:
    """A signal."""
    return NewMessage(run_id=run_id, name=name, value=value, received_at=moment(7), idempotency_key=key)


async def sent(store: DueStore, *messages: NewMessage) -> None:
    """Send messages, each of which must be stored."""
    assert [await store.send(each) for each in messages] == [Delivery.STORED] * len(messages)


async def notice(store: DueStore, claim: Claim) -> Notice:
    """The notice of a claim; an empty one if there is none."""
    found = await store.notices([claim])
    return found[0] if found else Notice(claim.run_id)


async def open_names(store: DueStore, claim: Claim) -> list[str]:
    """The names of the messages that no step has taken, in order."""
    return [each.name for each in (await notice(store, claim)).messages]
