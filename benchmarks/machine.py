"""The machine and the versions of a measurement."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmarks.peers import ROOT

_PACKAGES = ("anyio", "pydantic", "sqlalchemy", "aiosqlite", "asyncpg", "opentelemetry-api")


def machine() -> dict[str, object]:
    """Processor, cores, memory, system and load average.

    Returns:
        `{"processor", "cores", "memory_gb", "system", "load": [1, 5, 15 minutes]}`.
    """
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load": [round(each, 2) for each in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Versions of Python, SQLite and the dependencies of this library."""
    found = {name: metadata.version(name) for name in _PACKAGES}
    return {"python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version, **found}


def commit() -> str:
    """The commit of the sources, with `+` if files are modified."""
    found = _git("rev-parse", "--short=12", "HEAD")
    return found + ("+" if found and _git("status", "--porcelain", "spine_async", "benchmarks") else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607 - git on PATH
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
