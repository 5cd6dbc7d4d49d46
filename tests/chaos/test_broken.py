"""The checks detect each of the broken stores and SQL statements."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from spine_async import StoreError
from spine_async.ports import RunStore
from spine_async.storage import MemoryRunStore, SqlRunStore
from spine_async.storage.sql.driver import claim_rule
from spine_async.storage.sql.schema.rows import EVENT_COLUMNS, VISIT_COLUMNS
from spine_async.storage.sql.sqlite import changes as sqlite_changes
from spine_async.storage.sql.sqlite import insert as sqlite_insert
from spine_async.storage.sql.sqlite import leases as sqlite_leases
from spine_async.storage.sql.sqlite.insert import Inserter
from tests.chaos.broken import BROKEN
from tests.chaos.checks import Reader, Violation, read_memory
from tests.chaos.scenes import SCENES, Cast, Look, Scene
from tests.chaos.size import report

pytestmark = pytest.mark.anyio


async def found_by(scene: Scene, store: RunStore, look: Look) -> str | None:
    """The violation that the scene detects, or None."""
    try:
        await scene(Cast(store, look))
    except Violation as exc:
        return str(exc)
    return None


async def found_in_memory(kind: type[MemoryRunStore]) -> str | None:
    """The first scene that detects a violation."""
    for scene in SCENES:
        store = kind()
        if await found_by(scene, store, lambda store=store: read_memory(store)) is not None:  # type: ignore[misc]
            return scene.__name__
    return None


async def test_a_correct_store_passes() -> None:
    assert await found_in_memory(MemoryRunStore) is None


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_broken_store_is_detected(kind: type[MemoryRunStore]) -> None:
    found = await found_in_memory(kind)
    assert found, f"nobody noticed {kind.__name__}"
    report(f"broken {kind.__name__}", found_by=found)


EPOCH, NUMBER = ("AND epoch = ?", "AND ? IS NOT NULL"), ("AND next_seq = ?", "AND ? IS NOT NULL")
STATUS = ("AND status IN ('running', 'waiting') AND owner IS NOT NULL", "")
SQL = {
    "epoch": (sqlite_changes, ("_ADVANCE", "_END"), EPOCH),
    "next_seq": (sqlite_changes, ("_ADVANCE", "_END"), NUMBER),
    "status": (sqlite_changes, ("_ADVANCE", "_END"), STATUS),
    "claim": (sqlite_leases, ("_CLAIM",), ("epoch = epoch + 1", "epoch = epoch")),
    "renew": (sqlite_leases, ("_RENEW",), EPOCH),
    "stop": (sqlite_leases, ("_CLAIM",), ("stop_requested = NULL,", "")),
}


async def found_in_sqlite(folder: Path) -> dict[str, str]:
    found = {}
    for scene in SCENES[:-1]:
        url = f"sqlite+aiosqlite:///{folder / scene.__name__}.db"
        store, reader = SqlRunStore.from_url(url), Reader(url)
        try:
            problem = await found_by(scene, store, reader.read)
        except (StoreError, sqlite3.Error) as exc:  # a constraint of the tables was violated
            problem = f"{type(exc).__name__}: {exc}"
        if problem is not None:
            found[scene.__name__] = problem
        reader.close()
        await store.close()
    return found


async def test_the_sqlite_store_passes(tmp_path: Path) -> None:
    assert await found_in_sqlite(tmp_path) == {}


@pytest.mark.parametrize("what", list(SQL))
async def test_a_statement_without_one_of_its_conditions_is_detected(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, names, (text, changed) = SQL[what]
    for name in names:
        before = getattr(module, name)
        assert text in before
        monkeypatch.setattr(module, name, before.replace(text, changed))
    found = await found_in_sqlite(tmp_path)
    assert found, f"no scene detects that {what} is not checked"
    report(f"broken sql {what}", found_by=sorted(found))


async def test_replacing_rows_without_a_fence_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for what in ("epoch", "next_seq", "status"):
        module, names, (text, changed) = SQL[what]
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name).replace(text, changed))
    monkeypatch.setattr(sqlite_insert, "INSERT", "INSERT OR REPLACE INTO")
    monkeypatch.setattr(sqlite_changes, "VISITS", Inserter("core_workflow_steps", VISIT_COLUMNS))
    monkeypatch.setattr(sqlite_changes, "EVENTS", Inserter("core_workflow_event_log", EVENT_COLUMNS))
    assert await found_in_sqlite(tmp_path)


async def test_a_claim_that_ignores_leases_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sqlite_leases,
        "decide",
        lambda request, state: claim_rule.Claimable(state.epoch, state.status) if state else None,
    )
    found = await found_in_sqlite(tmp_path)
    assert set(found) >= {"claimed_while_it_is_owned", "claimed_after_it_completed"}
