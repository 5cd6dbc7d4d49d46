"""SQLite files: their modes, and files that are removed or replaced while they are open."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from contextlib import closing, suppress
from pathlib import Path

import anyio
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from spine_async import RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.errors import StoreError, StoreUnavailableError
from spine_async.ports import CommitOutcome
from spine_async.storage import SqlRunStore, upgrade_schema
from spine_async.storage.selection import open_store
from spine_async.storage.sql.sqlite.private_file import create_private_file
from spine_async.testing.conformance.rows import change, created, new_run, visit
from tests.storage.history import advanced, begun

HERE = Path(__file__).parents[2]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def nothing(context: WorkflowContext, config: object) -> None:
    return None


FLOW = Workflow("w", [Step.lambda_("nothing", nothing)])


@pytest.fixture(autouse=True)
def _usual_umask() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


class TestModes:
    async def test_a_new_file_and_its_folder_are_private(self, tmp_path: Path) -> None:
        folder = tmp_path / ".spine"
        store = SqlRunStore(f"sqlite:///{folder}/runs.db")
        await begun(store)
        assert mode(folder) == 0o700
        assert {each.name: mode(each) for each in folder.iterdir()} == dict.fromkeys(
            ("runs.db", "runs.db-wal", "runs.db-shm"), 0o600
        )
        await store.close()

    async def test_all_folders_that_are_made_for_it_are_private(self, tmp_path: Path) -> None:
        store = SqlRunStore(f"sqlite:///{tmp_path}/data/runs/today/runs.db")
        await begun(store)
        await store.close()
        folders = [tmp_path / "data", tmp_path / "data/runs", tmp_path / "data/runs/today"]
        assert [mode(each) for each in folders] == [0o700] * 3

    @pytest.mark.parametrize("url", ["sqlite:///{}", "sqlite:///file:{}"])
    async def test_an_upgrade_makes_a_private_file_too(self, tmp_path: Path, url: str) -> None:
        await upgrade_schema(url.format(tmp_path / "runs.db"))
        assert mode(tmp_path / "runs.db") == 0o600
        assert [each.name for each in tmp_path.iterdir()] == ["runs.db"]

    async def test_the_file_of_an_engine_is_private(self, tmp_path: Path) -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/runs.db")
        await created(SqlRunStore(engine))
        await engine.dispose()
        assert mode(tmp_path / "runs.db") == 0o600

    async def test_an_existing_file_and_folder_keep_their_modes(self, tmp_path: Path) -> None:
        file = tmp_path / "runs.db"
        sqlite3.connect(file).close()
        file.chmod(0o664)
        tmp_path.chmod(0o755)
        store = SqlRunStore(f"sqlite:///{file}")
        await begun(store)
        assert (mode(file), mode(tmp_path)) == (0o664, 0o755)
        assert mode(tmp_path / "runs.db-wal") == 0o664
        await store.close()

    async def test_the_target_of_a_link_is_private(self, tmp_path: Path) -> None:
        (tmp_path / "runs.db").symlink_to(tmp_path / "target.db")
        store = SqlRunStore(f"sqlite:///{tmp_path}/runs.db")
        await created(store)
        await store.close()
        assert mode(tmp_path / "target.db") == 0o600

    def test_a_file_system_without_hard_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*paths: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refuse)
        create_private_file(tmp_path / "runs.db")
        assert mode(tmp_path / "runs.db") == 0o600
        create_private_file(tmp_path / "runs.db")
        assert [each.name for each in tmp_path.iterdir()] == ["runs.db"]

    async def test_a_file_that_may_not_be_created_is_not(self, tmp_path: Path) -> None:
        store = SqlRunStore(f"sqlite:///file:{tmp_path}/a/runs.db?mode=rw")
        with pytest.raises(StoreUnavailableError):
            await created(store)
        assert list(tmp_path.iterdir()) == []


class TestReplacedFiles:
    async def test_a_removed_file_is_noticed_by_the_next_call(self, tmp_path: Path) -> None:
        config = WorkflowRunnerConfig(database_url=f"sqlite:///{tmp_path}/runs.db")
        async with WorkflowRunner(config=config) as runner:
            await runner.execute(FLOW, run_id="before")
            (tmp_path / "runs.db").unlink()
            with pytest.raises(StoreUnavailableError, match=r"runs\.db was removed or replaced while it was open"):
                await runner.execute(FLOW, run_id="after")
            with pytest.raises(StoreUnavailableError, match="removed or replaced"):
                await runner.list_runs()
        async with WorkflowRunner(config=config) as runner:
            assert (await runner.execute(FLOW, run_id="again")).status is RunStatus.COMPLETED
            assert [run.run_id for run in await runner.list_runs()] == ["again"]

    @pytest.mark.parametrize("suffix", ["", "-wal"])
    async def test_a_replaced_file_is_noticed(self, tmp_path: Path, suffix: str) -> None:
        store = SqlRunStore(f"sqlite:///{tmp_path}/runs.db")
        claim = await begun(store)
        (tmp_path / f"runs.db{suffix}").rename(tmp_path / "moved")
        (tmp_path / f"runs.db{suffix}").touch()
        with pytest.raises(StoreUnavailableError, match="removed or replaced"):
            await advanced(store, claim)
        await store.close()

    @pytest.mark.parametrize("suffix", ["", "-wal"])
    @pytest.mark.parametrize("has_renewed", [False, True])
    async def test_it_is_noticed_although_renewals_have_a_connection_of_their_own(
        self, tmp_path: Path, suffix: str, has_renewed: bool
    ) -> None:
        store = SqlRunStore(f"sqlite:///{tmp_path}/runs.db")
        claim = await begun(store)
        if has_renewed:
            await store.renew([claim], 60)
        (tmp_path / f"runs.db{suffix}").rename(tmp_path / "moved")
        if suffix:
            (tmp_path / f"runs.db{suffix}").touch()
        with suppress(StoreUnavailableError):
            await store.renew([claim], 60)
            assert not has_renewed
        with pytest.raises(StoreUnavailableError, match="removed or replaced"):
            await advanced(store, claim)
        await store.close()

    async def test_a_removed_folder_is_noticed(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        store = SqlRunStore(f"sqlite:///{tmp_path}/a/runs.db")
        claim = await begun(store)
        (tmp_path / "a").rename(tmp_path / "b")
        made = change(claim, [visit("more", claim.next_seq)])
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="removed or replaced"):
                await store.commit([made])
        (tmp_path / "b").rename(tmp_path / "a")
        await store.close()
        assert await store.commit([made]) == [CommitOutcome.COMMITTED]
        await store.close()

    async def test_connections_in_the_pool_of_an_engine_are_not_used_for_another_file(self, tmp_path: Path) -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/runs.db")
        store = SqlRunStore(engine)
        await begun(store)
        assert await store.load("run-1") is not None
        await store.close()
        for each in tmp_path.iterdir():
            each.unlink()
        await created(store, new_run("new"))
        assert await store.load("run-1") is None
        await store.close()
        with closing(sqlite3.connect(tmp_path / "runs.db")) as file:
            assert file.execute("SELECT run_id FROM core_workflow_runs").fetchall() == [("new",)]
        await engine.dispose()

    async def test_other_processes_do_not_count_as_a_replacement(self, tmp_path: Path) -> None:
        store = SqlRunStore(f"sqlite:///{tmp_path}/runs.db")
        claim = await begun(store)
        for _ in range(3):
            code = (
                "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('VACUUM'); "
                "c.execute('PRAGMA wal_checkpoint(TRUNCATE)'); c.close()"
            )
            await anyio.run_process([sys.executable, "-c", code, str(tmp_path / "runs.db")])
            claim = await advanced(store, claim)
        await store.close()
        await advanced(store, claim)
        await store.close()


class TestEmptySettings:
    @pytest.mark.parametrize("value", ["", " ", "\n"])
    def test_an_empty_variable_is_refused(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("SPINE_DATABASE_URL", value)
        with pytest.raises(StoreError, match="SPINE_DATABASE_URL is empty; set it to a database URL, or remove it"):
            open_store(WorkflowRunnerConfig())
        open_store(WorkflowRunnerConfig(database_url="sqlite://"))

    def test_an_empty_setting_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPINE_DATABASE_URL", "sqlite://")
        with pytest.raises(StoreError, match="database_url is empty"):
            open_store(WorkflowRunnerConfig(database_url=""))
