"""Python blocks of the README and the docs run as tests, page by page, each in an empty working directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from tests.interpreter import share_bytecode

share_bytecode()  # before the modules are collected and the workers are started

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
