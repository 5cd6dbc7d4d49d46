"""Pipelines that misbehave on a worker."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spine_async import LocalDispatcher

dispatcher = LocalDispatcher()

NOT_A_REGISTRY = {"die": None}


@dispatcher.pipeline("die")
def die(params: Mapping[str, Any]) -> None:
    """Kill the worker, and count how often."""
    with Path(params["folder"], "deaths").open("a") as deaths:
        deaths.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


@dispatcher.pipeline("exit")
def leave(params: Mapping[str, Any]) -> None:
    sys.exit(3)


@dispatcher.pipeline("recurse")
def recurse(params: Mapping[str, Any]) -> None:
    recurse(params)


@dispatcher.pipeline("pid")
def pid(params: Mapping[str, Any]) -> dict[str, int]:
    return {"pid": os.getpid()}
