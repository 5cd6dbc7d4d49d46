"""Installs the environments of the peers: `nox -s bench_peers`, or `python -m benchmarks.peers [NAME …]`.

If a peer cannot be installed, the reason is saved, and the table lists the peer as missing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".nox" / "peers"

REQUIREMENTS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "dbos": ["dbos>=3.4,<4"],
        "langgraph": [
            "langgraph>=1.2,<2",
            "langgraph-checkpoint-sqlite>=3.1,<4",
            "langgraph-checkpoint-postgres>=3.2,<4",
            "psycopg[binary,pool]",
        ],
        "absurd": ["absurd-sdk>=0.5,<0.6", "absurdctl>=0.5,<0.6"],
        "burr": ["apache-burr>=0.43,<0.44", "aiosqlite", "asyncpg"],
        "procrastinate": ["procrastinate>=3.5,<4"],
        "pgqueuer": ["pgqueuer[asyncpg]>=1.6,<2"],
    }
)


def python_of(peer: str) -> Path:
    """The interpreter of the peer's environment; it may not exist."""
    return FOLDER / peer / "bin" / "python"


def missing_reason(peer: str) -> str | None:
    """Why the peer cannot be measured, or None if it can."""
    reason_file = _reason_file(peer)
    if reason_file.is_file():
        return reason_file.read_text(encoding="utf-8")
    return None if python_of(peer).is_file() else "not installed; run nox -s bench_peers"


def install(peer: str) -> str | None:
    """Create the environment of the peer; returns the reason if that fails."""
    reason = _failure([sys.executable, "-m", "venv", str(FOLDER / peer)])
    reason = reason or _failure([str(python_of(peer)), "-m", "pip", "install", "-q", *REQUIREMENTS[peer]])
    reason_file = _reason_file(peer)
    reason_file.unlink(missing_ok=True)
    if reason:
        reason_file.write_text(reason, encoding="utf-8")
    return reason


def main(names: Sequence[str]) -> None:
    """Install the named peers, or all."""
    unknown = [name for name in names if name not in REQUIREMENTS]
    if unknown:
        sys.exit(f"{', '.join(unknown)}: not among {', '.join(REQUIREMENTS)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for peer in names or list(REQUIREMENTS):
        print(f"{peer}: {install(peer) or 'installed'}")


def _reason_file(peer: str) -> Path:
    return FOLDER / f"{peer}.missing"


def _failure(command: Sequence[str]) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return None if done.returncode == 0 else f"cannot be installed: {lines[-1] if lines else done.returncode}"


if __name__ == "__main__":
    main(sys.argv[1:])
