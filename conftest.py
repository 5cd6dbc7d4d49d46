"""Runs the Python blocks of the README and the docs as tests, each page in an empty working directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

collect_ignore_glob = ["docs/examples/*"]  # scripts; tests in tests/ run them


def _enter_folder(namespace: dict[str, Any]) -> None:
    namespace["_before"], namespace["_folder"] = os.getcwd(), tempfile.mkdtemp(prefix="spine-docs-")  # noqa: PTH109
    os.chdir(namespace["_folder"])


def _leave_folder(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_before"])
    shutil.rmtree(namespace["_folder"])


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    setup=_enter_folder,
    teardown=_leave_folder,
).pytest()
