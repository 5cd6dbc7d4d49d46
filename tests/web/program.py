"""A server as a program: `python -m tests.web.program SOCKET` for aiohttp, `create_fastapi` for uvicorn.

The environment contains `DATABASE_URL` and `FOLDER`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aiohttp import web
from fastapi import FastAPI

from spine_async import WorkflowRunner
from tests.web.flows import make_runner
from tests.web.sites import aiohttp_app, fastapi_app


def _runner() -> WorkflowRunner:
    return make_runner(os.environ["DATABASE_URL"], Path(os.environ["FOLDER"]))[0]


def create_fastapi() -> FastAPI:
    return fastapi_app(_runner())


if __name__ == "__main__":
    web.run_app(aiohttp_app(_runner()), path=sys.argv[1], print=None)
