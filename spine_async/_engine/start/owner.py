"""Names of owners, and whether the process of an owner still exists.

The name of an owner identifies a host, a process on it, and a runner in that process. If a process was killed, other
processes on its host need not wait for its leases: they see that the process is gone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from pathlib import Path

_PARTS = 4


def new_owner() -> str:
    """The name of a runner in this process: host, process id, start time of the process, and a random token."""
    pid = os.getpid()
    return f"{_host()}/{pid}/{_started(pid) or 0}/{secrets.token_hex(4)}"


def is_gone(owner: str) -> bool:
    """Whether `owner` was a process on this host that no longer exists. Reads files, so not for the event loop."""
    parts = owner.split("/")
    if len(parts) != _PARTS or parts[0] != _host() or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return False
    pid, started = int(parts[1]), int(parts[2])
    if not _is_running(pid):
        return True
    return started != 0 and _started(pid) not in {None, started}  # another process has the same id now


def is_alive(owner: str) -> bool:
    """Whether `owner` is provably another process on this host that exists and is not suspended. Reads files."""
    parts = owner.split("/")
    if len(parts) != _PARTS or parts[0] != _host() or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return False
    if not (_text("/proc/sys/kernel/random/boot_id") and _link("/proc/self/ns/pid")):
        return False  # the name of the host alone proves nothing
    pid, started = int(parts[1]), int(parts[2])
    if pid == os.getpid() or started == 0 or _started(pid) != started:
        return False
    return _text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in (["Z"], ["X"], ["T"], ["t"])


def _host() -> str:
    """The space of process ids that this process belongs to: one boot of one machine, one container."""
    space = _link("/proc/self/ns/pid")
    token = hashlib.sha256(f"{_text('/proc/sys/kernel/random/boot_id')}{space}".encode()).hexdigest()[:12]
    return f"{socket.gethostname().replace('/', '-')}-{token}"


def _is_running(pid: int) -> bool:
    stat = _text(f"/proc/{pid}/stat")
    if stat:
        return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}  # a zombie executes nothing
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _started(pid: int) -> int | None:
    """Start time of the process in clock ticks since the boot, or None if the host does not provide it."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


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
