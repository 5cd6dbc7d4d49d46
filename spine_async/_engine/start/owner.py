"""Who owns a run, and whether that owner is still there.

An owner is a process on a host and a runner in it, told in one line that can be read and compared. A process that was
killed must not make its own host wait for its lease: an owner whose process is gone from this host is gone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from pathlib import Path

_PARTS = 4


def new_owner() -> str:
    """The name of a runner in this process: host, process id, when that process started, and something random."""
    pid = os.getpid()
    return f"{_host()}/{pid}/{_started(pid) or 0}/{secrets.token_hex(4)}"


def is_gone(owner: str) -> bool:
    """Whether `owner` was a process of this host and that process is no more. Reads files; not for the event loop."""
    parts = owner.split("/")
    if len(parts) != _PARTS or parts[0] != _host() or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return False
    pid, started = int(parts[1]), int(parts[2])
    if not _is_running(pid):
        return True
    return started != 0 and _started(pid) not in {None, started}  # another process has got the number since


def _host() -> str:
    """This host, as far as process ids mean the same: one boot of one machine, one container."""
    space = _link("/proc/self/ns/pid")
    mark = hashlib.sha256(f"{_text('/proc/sys/kernel/random/boot_id')}{space}".encode()).hexdigest()[:12]
    return f"{socket.gethostname().replace('/', '-')}-{mark}"


def _is_running(pid: int) -> bool:
    stat = _text(f"/proc/{pid}/stat")
    if stat:
        return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}  # a zombie runs nothing any more
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _started(pid: int) -> int | None:
    """When the process started, in clock ticks since the boot, or None where the host does not tell."""
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
