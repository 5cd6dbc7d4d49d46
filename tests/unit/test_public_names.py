"""The public names are imported when they are first used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import spine_async


def test_every_public_name_exists() -> None:
    missing = [name for name in spine_async.__all__ if not hasattr(spine_async, name)]
    assert missing == []
    assert set(spine_async.__all__) <= set(dir(spine_async))
    assert spine_async.errors.SpineError is spine_async.SpineError


def test_checkers_see_the_names_that_exist() -> None:
    """The imports for type checkers and the names by module are the same."""
    tree = ast.parse(Path(spine_async.__file__).read_text(encoding="utf-8"))
    imports = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)]
    seen = {(each.module, name.name) for each in imports for name in each.names if str(each.module).startswith("spine")}
    known = {(f"spine_async.{module}", name) for name, module in spine_async._MODULES.items()}
    assert seen == known
    assert {name for _, name in known} | {"__version__"} == set(spine_async.__all__)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Wrokflow'"):
        spine_async.Wrokflow  # type: ignore[attr-defined] # noqa: B018 - the access is the test


def test_the_import_of_the_package_is_cheap() -> None:
    script = "import sys, spine_async; print([name for name in sys.modules if name.startswith('spine_async.')])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
