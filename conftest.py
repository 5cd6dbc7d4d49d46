"""Python blocks of the README and the docs run as tests, page by page, each in an empty working directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from typing import Any
from unittest import SkipTest

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from tests.interpreter import share_bytecode

share_bytecode()  # before the modules are collected and the workers are started

collect_ignore_glob = ["docs/examples/*", "docs/hooks/*"]  # scripts, and modules for mkdocs; tests in tests/ use them
if find_spec("pydantic_ai") is None:  # an environment that was made before the extra existed
    collect_ignore_glob += ["spine_async/integrations/pydantic_ai.py", "tests/integrations/*", "docs/agents.md"]

if find_spec("distributed") is None:  # the same
    collect_ignore_glob += ["spine_async/dispatch/dask/*", "tests/dispatch/test_dask*"]


def _enter_folder(namespace: dict[str, Any]) -> None:
    namespace["_before"], namespace["_folder"] = os.getcwd(), tempfile.mkdtemp(prefix="spine-docs-")  # noqa: PTH109
    os.chdir(namespace["_folder"])


def _leave_folder(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_before"])
    shutil.rmtree(namespace["_folder"])


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/reference/*.md"],
    setup=_enter_folder,
    teardown=_leave_folder,
).pytest()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two processes more than processors, because tests wait for half of their time: for servers, disks and timers."""
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) + 2


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Run the earlier blocks of a page first, if another worker of pytest has run them: blocks share their names."""
    example = getattr(item, "example", None)
    if not isinstance(example, Example):
        return
    evaluated: set[int] = example.namespace.setdefault("_evaluated", set())
    for earlier in example.document.examples():
        if earlier.start < example.start and earlier.start not in evaluated:
            evaluated.add(earlier.start)
            with suppress(SkipTest):
                earlier.evaluate()
    evaluated.add(example.start)
