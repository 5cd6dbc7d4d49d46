"""The owner of a run: its name, and whether its process still exists.

The name of an owner identifies a host, a process on it, and a runner in that process. If a process was killed, other
processes on its host need not wait for its leases: they see that the process is gone. Where the host does not identify
its boot and its process namespace, no process can know this, and the lease must end first. Only Linux identifies both.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from pathlib import Path

_PARTS = 4
_UNKNOWN = "unidentified"
_THREADS, _START = 17, 19  # positions in `_fields`


def new_owner() -> str:
    """The name of a runner in this process: host, process id, start time of the process, and a random token."""
    pid = os.getpid()
    host = _host()
    name = host if host is not None else f"{_host_name()}-{_UNKNOWN}"
    return f"{name}/{pid}/{(host is not None and _started(pid)) or 0}/{secrets.token_hex(4)}"


def place_of(owner: str) -> tuple[str, int]:
    """The name of the host and the process id in the name of an owner; 0 if it has no process id."""
    parts = owner.split("/")
    if len(parts) != _PARTS or not parts[1].isdecimal():
        return owner, 0
    return parts[0].rpartition("-")[0] or parts[0], int(parts[1])


def is_gone(owner: str) -> bool:
    """Whether `owner` was a process on this host that no longer exists.

    False if anything is uncertain: the lease of such an owner must end first. Reads files, so it must not run on the
    event loop.
    """
    process = _local_process(owner)
    if process is None:
        return False
    pid, started = process
    if not _is_running(pid):
        return True
    return started != 0 and _started(pid) not in {None, started}  # another process has the same id now


def is_alive(owner: str) -> bool:
    """Whether `owner` is provably another process on this host that exists and is not suspended.

    False if anything is uncertain. Reads files, so it must not run on the event loop.
    """
    process = _local_process(owner)
    if process is None:
        return False
    pid, started = process
    if pid == os.getpid() or started == 0 or _started(pid) != started:
        return False
    return _fields(pid)[:1] not in ([], ["Z"], ["X"], ["T"], ["t"])


def _local_process(owner: str) -> tuple[int, int] | None:
    """Process id and start time (0: unknown) of an owner, or None unless it was a process on this host."""
    parts = owner.split("/")
    if len(parts) != _PARTS or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    return (int(parts[1]), int(parts[2])) if parts[0] == _host() else None


def _host() -> str | None:
    """The space of process ids that this process belongs to: one boot of one machine, one container.

    None if it cannot be identified. Without an identifier of the boot, containers with the same host name on different
    machines look alike, because the initial namespaces have the same numbers on all machines. If `/proc` is that of
    another namespace, its process ids are not those of `os.getpid`.
    """
    boot, space = _text("/proc/sys/kernel/random/boot_id").strip(), _link("/proc/self/ns/pid")
    if not boot or not space or _link("/proc/self") != str(os.getpid()):
        return None
    # Start times of processes depend on the time namespace of the reader.
    identity = f"{boot}{space}{_link('/proc/self/ns/time')}"
    return f"{_host_name()}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _host_name() -> str:
    return socket.gethostname().replace("/", "-")


def _is_running(pid: int) -> bool:
    fields = _fields(pid)
    if fields:
        # A zombie executes nothing, unless only the main thread has ended.
        return fields[0] not in {"Z", "X"} or (len(fields) > _THREADS and int(fields[_THREADS]) > 1)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _started(pid: int) -> int | None:
    """Start time of the process in clock ticks since the boot, or None if the host does not provide it."""
    fields = _fields(pid)
    return int(fields[_START]) if len(fields) > _START else None


def _fields(pid: int) -> list[str]:
    """The fields of `/proc/<pid>/stat` after the name of the command; empty if the file cannot be read."""
    return _text(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
