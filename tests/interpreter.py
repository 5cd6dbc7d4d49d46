"""Environment of the Python processes that tests start: they share one cache of bytecode.

The cache is a folder of pytest's own cache, so the sources stay free of `__pycache__`, and each module is compiled once
instead of once per process. Python checks each entry against the time and size of its source.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BYTECODE = ROOT / ".pytest_cache" / "bytecode"


def environment(**others: str) -> dict[str, str]:
    """Variables of a process that inherits nothing from this one."""
    return {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(BYTECODE), **others}


def share_bytecode() -> None:
    """Let this process, its pytest workers and the processes that inherit its environment use the cache."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(BYTECODE)
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(BYTECODE)
