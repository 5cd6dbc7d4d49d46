"""Processes that run during an upgrade to a later schema: they continue, or raise `SchemaVersionError`."""

from __future__ import annotations

import pytest

from spine_async._model.run_claim import Claim
from spine_async.errors import SchemaVersionError, StoreError
from spine_async.storage import SqlRunStore, upgrade_schema
from spine_async.storage.sql.schema.tables import VERSION
from spine_async.testing.conformance.rows import change, created, new_run, visit
from tests.storage.history import advanced, assert_whole, begun
from tests.storage.plain_sql import execute

LATER = VERSION + 1


def upgrade(url: str, *statements: str, compatible_from: int | None = None) -> None:
    """Upgrade the schema as a later version of the library would."""
    for statement in statements:
        execute(url, statement)
    execute(url, f"UPDATE core_workflow_schema SET version = {LATER}")
    if compatible_from is not None:
        execute(url, "ALTER TABLE core_workflow_schema ADD COLUMN compatible_from integer")
        execute(url, f"UPDATE core_workflow_schema SET compatible_from = {compatible_from}")


async def perform(operation: str, store: SqlRunStore, claim: Claim) -> None:
    if operation == "commit":
        await store.commit([change(claim, [visit("more", claim.next_seq)])])
    elif operation == "create":
        await created(store, new_run("another"))
    else:
        await store.load("run-1")


async def test_a_compatible_upgrade_stops_nobody(empty_database_url: str) -> None:
    store = SqlRunStore(empty_database_url)
    claim = await begun(store)
    upgrade(empty_database_url, "ALTER TABLE core_workflow_runs ADD COLUMN later_column text", compatible_from=VERSION)
    claim = await advanced(store, claim)
    await store.close()
    claim = await advanced(store, claim)
    await assert_whole(store, claim)
    await store.close()
    await upgrade_schema(empty_database_url)
    assert execute(empty_database_url, "SELECT version FROM core_workflow_schema") == [(LATER,)]


@pytest.mark.parametrize("compatible_from", [None, LATER])
async def test_an_incompatible_upgrade_is_named_at_the_next_opening(
    empty_database_url: str, compatible_from: int | None
) -> None:
    store = SqlRunStore(empty_database_url)
    await begun(store)
    upgrade(empty_database_url, compatible_from=compatible_from)
    await store.close()
    with pytest.raises(
        SchemaVersionError, match=f"schema version {LATER}, but this library requires version {VERSION}; upgrade"
    ):
        await store.load("run-1")
    await store.close()
    with pytest.raises(SchemaVersionError):
        await upgrade_schema(empty_database_url)


@pytest.mark.parametrize("operation", ["commit", "create", "load"])
async def test_an_incompatible_upgrade_is_named_by_the_first_statement_that_fails(
    empty_database_url: str, operation: str
) -> None:
    store = SqlRunStore(empty_database_url)
    claim = await begun(store)
    upgrade(empty_database_url, "ALTER TABLE core_workflow_runs RENAME TO spine_runs")
    with pytest.raises(SchemaVersionError, match=f"schema version {LATER}"):
        await perform(operation, store, claim)
    await store.close()


async def test_without_an_upgrade_the_error_remains_what_it_was(empty_database_url: str) -> None:
    store = SqlRunStore(empty_database_url)
    claim = await begun(store)
    execute(empty_database_url, "ALTER TABLE core_workflow_runs RENAME TO spine_runs")
    with pytest.raises(StoreError) as caught:
        await store.commit([change(claim, [visit("more", claim.next_seq)])])
    assert not isinstance(caught.value, SchemaVersionError)
    await store.close()
