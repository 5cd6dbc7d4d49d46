"""A PgBouncer for the suite, from the system; there is no wheel of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from tests.servers.process import ServerProcess, free_port

_USER = 65534  # nobody: PgBouncer refuses root
# In session mode each client keeps a connection to the server; in transaction mode clients share fewer connections.
_POOL_SIZES = {"transaction": 4, "session": 60}
_SETTINGS = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
server_reset_query_always = 0
unix_socket_dir =
"""


def program() -> str | None:
    """PgBouncer's program, or None if it is not installed."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


@dataclass
class PgBouncer:
    """A running PgBouncer in front of a PostgreSQL server."""

    port: int
    process: ServerProcess

    def url_of(self, dsn: str) -> str:
        """The libpq URL of a server's database, through this pooler."""
        parts = urlsplit(dsn)
        return urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{self.port}"))

    def stop(self) -> None:
        self.process.stop()


def launch(dsn: str, mode: str) -> PgBouncer:
    """Start one in front of the server of this libpq URL, with the pool mode `transaction` or `session`."""
    found, server, own_port = program(), urlsplit(dsn), free_port()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="spine-pgbouncer-", dir="/tmp" if os.geteuid() == 0 else None))
    settings = folder / "pgbouncer.ini"
    text = _SETTINGS.format(
        host=server.hostname,
        port=server.port,
        user=server.username,
        own_port=own_port,
        mode=mode,
        size=_POOL_SIZES[mode],
    )
    settings.write_text(text)
    owner = (_USER, _USER) if os.geteuid() == 0 else None
    if owner is not None:
        for each in (folder, settings):
            os.chown(each, *owner)
    through = urlunsplit(server._replace(netloc=f"{server.username}@127.0.0.1:{own_port}"))
    return PgBouncer(own_port, ServerProcess([found, str(settings)], folder, lambda: _answers(through), owner=owner))


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
