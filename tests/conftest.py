"""Fixtures for every test: servers, databases, and an event loop that must not be blocked.

Servers start when the first test asks for one, so that unit tests stay fast.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from blockbuster import BlockBuster

from spine_async import WorkflowRunner
from tests.chaos.size import IS_FULL, LINES
from tests.servers import postgres, redis
from tests.servers.kept_tables import KeptTables
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.thinning import mark_the_rest_as_long

pytest.register_assert_rewrite("spine_async.testing")

_SKIPPED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("spine")
    group.addoption("--no-services", action="store_true", help="leave out the tests that need PostgreSQL or Redis")
    group.addoption("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="event loop of the async tests")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SKIPPED] = []


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Hardly anything that is created until the tests begin is garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before `-m` selects. The randomised tests in full size run with all cases."""
    if not IS_FULL:
        mark_the_rest_as_long(items)


def pytest_collection_finish() -> None:
    """Modules and tests live as long as the session: collections of garbage need not look at them."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process passes its reports to the process that prints them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["told"], output["skipped"] = LINES, session.config.stash[_SKIPPED]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker is done."""
    output = getattr(node, "workeroutput", {})  # one that has crashed has none
    LINES.extend(output.get("told", ()))
    node.config.stash[_SKIPPED].extend(output.get("skipped", ()))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if LINES:
        terminalreporter.section("chaos")
        for line in LINES:
            terminalreporter.line(line)
    skipped = config.stash[_SKIPPED]
    if skipped:
        terminalreporter.section("services")
        terminalreporter.line(f"--no-services: {len(skipped)} tests that need a server were left out on purpose")


@pytest.fixture(scope="session")
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return "asyncio", {"use_uvloop": request.config.getoption("--loop") == "uvloop"}


@pytest.fixture(scope="session")
def _block_buster() -> BlockBuster:
    WorkflowRunner()  # or the first test would be the one that waits for what comes with the first runner
    buster = BlockBuster(scanned_modules=["spine_async"])
    for function in buster.functions.values():  # asyncpg looks for ~/.pgpass and certificates as it connects
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_dsn_and_args")
    return buster


@pytest.fixture(autouse=True)
def _unblocked_loop(request: pytest.FixtureRequest, _block_buster: BlockBuster) -> Iterator[None]:
    """Fail a test in which library code blocks the event loop."""
    if request.node.get_closest_marker("allow_blocking"):
        yield
        return
    _block_buster.activate()
    try:
        yield
    finally:
        _block_buster.deactivate()


@pytest.fixture
def _services(request: pytest.FixtureRequest) -> None:
    """Where the test is left out, skip it before a server is started for it."""
    if request.config.getoption("--no-services"):
        request.config.stash[_SKIPPED].append(request.node.nodeid)
        pytest.skip("--no-services")


class Servers:
    """The servers of this session, each started when it is first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, Any] = {}

    def get(self, name: str, launch: Callable[[], Any]) -> Any:
        if name not in self._running:
            self._running[name] = launch()
        return self._running[name]

    def stop(self) -> None:
        for server in self._running.values():
            server.stop()


@pytest.fixture(scope="session")
def _servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.stop()


class Databases:
    """Databases that live as long as one test module or the session; each is made when it is first asked for."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._made: dict[str, tuple[PostgresServer, str]] = {}
        self._kept: dict[str, KeptTables] = {}

    def server(self, *, is_durable: bool) -> PostgresServer:
        name = "postgres-durable" if is_durable else "postgres"
        server: PostgresServer = self._servers.get(name, lambda: postgres.launch(is_durable=is_durable))
        return server

    def get(self, purpose: str, *, is_durable: bool = False) -> str:
        if purpose not in self._made:
            server = self.server(is_durable=is_durable)
            self._made[purpose] = (server, server.create_database())
        return self._made[purpose][1]

    def cleared(self, purpose: str) -> str:
        """A database with the library's tables and without rows."""
        dsn = self.get(purpose)
        self._kept.setdefault(purpose, KeptTables(dsn)).clear()
        return dsn

    def drop(self) -> None:
        for server, dsn in self._made.values():
            server.drop_database(dsn)


@pytest.fixture(scope="module")
def _module_databases(_servers: Servers) -> Iterator[Databases]:
    databases = Databases(_servers)
    yield databases
    databases.drop()


@pytest.fixture(scope="session")
def _session_databases(_servers: Servers) -> Databases:
    """Databases that are emptied before each test; they end with their servers."""
    return Databases(_servers)


@pytest.fixture
def postgres_dsn(_services: None, _module_databases: Databases) -> str:
    """libpq URL of this module's database, shared by its tests."""
    return _module_databases.get("module")


@pytest.fixture
def postgres_url(postgres_dsn: str) -> str:
    """SQLAlchemy URL of this module's database, shared by its tests."""
    return postgres.async_url(postgres_dsn)


@pytest.fixture
def fresh_postgres_url(_services: None, _session_databases: Databases) -> str:
    """SQLAlchemy URL of an empty PostgreSQL database; its libpq URL is the same with `postgresql:` in front."""
    dsn = _session_databases.get("fresh")
    postgres.empty_database(dsn)
    return postgres.async_url(dsn)


@pytest.fixture
def cleared_postgres_url(_services: None, _session_databases: Databases) -> str:
    """SQLAlchemy URL of a PostgreSQL database with the library's tables and no rows, which is there sooner."""
    return postgres.async_url(_session_databases.cleared("fresh"))


@pytest.fixture
def durable_postgres_url(_services: None, _session_databases: Databases) -> str:
    """SQLAlchemy URL of an empty database on a server with PostgreSQL's own durability settings."""
    dsn = _session_databases.get("durable", is_durable=True)
    postgres.empty_database(dsn)
    return postgres.async_url(dsn)


@pytest.fixture
def postgres_to_kill(_services: None, _servers: Servers) -> Iterator[PostgresServer]:
    """A server of this test's own: `process.kill()` and `process.start()` are allowed."""
    server = postgres.launch(is_durable=True)
    if not server.is_own:
        pytest.skip(f"{postgres.DSN_VARIABLE} names somebody's server, which is not killed")
    yield server
    server.stop()


@pytest.fixture
def redis_url(_services: None, _servers: Servers) -> str:
    """URL of a Redis server; keep to a key prefix of your own."""
    url: str = _servers.get("redis", redis.launch).url
    return url


@pytest.fixture
def redis_store_url(redis_url: str) -> Iterator[str]:
    """URL of the Redis server with a prefix of this test; its keys are removed afterwards."""
    prefix = f"spine_test_{token_hex(6)}"
    yield redis.with_prefix(redis_url, prefix)
    redis.remove_keys(redis_url, prefix)


@pytest.fixture
def redis_to_kill(_services: None) -> Iterator[RedisServer]:
    """A server of this test's own that writes each command to its disk: `kill` and `start` are allowed."""
    server = redis.launch(is_durable=True)
    if not server.is_own:
        pytest.skip(f"{redis.URL_VARIABLE} names somebody's server, which is not killed")
    yield server
    server.stop()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """SQLAlchemy URL of an SQLite file that does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """SQLAlchemy URL of an SQLite file that does not exist yet and a PostgreSQL database with empty tables in turn."""
    chosen = "sqlite_url" if request.param == "sqlite" else "cleared_postgres_url"
    url: str = request.getfixturevalue(chosen)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """SQLAlchemy URL of a database without tables, SQLite and PostgreSQL in turn."""
    chosen = "sqlite_url" if request.param == "sqlite" else "fresh_postgres_url"
    url: str = request.getfixturevalue(chosen)
    return url
