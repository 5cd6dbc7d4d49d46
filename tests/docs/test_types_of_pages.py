"""The Python blocks of the pages pass mypy and pyright, by default and strict; both find wrong calls."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "docs/tutorial.md",
    "docs/testing.md",
    "docs/services.md",
    "docs/signals.md",
    "docs/live-events.md",
    "docs/branches.md",
    "docs/sagas.md",
]
_OTHER_FRAMEWORK = ("fastapi", "aiohttp", "web.", "MyStore")  # not installed, or the name of a placeholder

WRONG = """
from typing import Any
from pydantic import BaseModel
from spine_async import Step, WorkflowContext, WorkflowRunner

class Model(BaseModel):
    n: int

def handler(context: WorkflowContext, config: dict[str, Any]) -> None: ...
def one(context: WorkflowContext) -> None: ...
async def three(context: WorkflowContext, config: dict[str, Any], more: int) -> None: ...
def swapped(config: dict[str, Any], context: WorkflowContext) -> None: ...

def reads(context: WorkflowContext) -> None:
    good: Model = context.get_output("a", model=Model)
    other: Model | int = context.get_output("a", default=1, model=Model)
    param: Model = context.get_param("a", model=Model)
    print(good, other, param, context.params["a"]["b"], context.get_output("a")["b"])
    bad: int = context.get_output("a", model=Model)  # wrong
    worse: int = context.get_param("a", model=Model)  # wrong
    print(bad, worse)

Step.lambda_("a", handler, on_error="continue")
Step.lambda_("a", one)  # wrong
Step.lambda_("a", three)  # wrong
Step.lambda_("a", swapped)  # wrong
Step.lambda_("a", handler, on_error="ignore")  # wrong
Step.lambda_("a", handler, timeouts=5)  # wrong
Step.map("m", items=[1], iterator=handler, on_error="ignore")  # wrong

def untyped(context): ...  # wrong

async def lists(runner: WorkflowRunner) -> None:
    await runner.list_runs(status="failed")
    await runner.list_runs(status="done")  # wrong
"""


def _module(page: str) -> str:
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    plain = [
        block
        for block in blocks
        if not any(word in block for word in _OTHER_FRAMEWORK)
        if not re.search(r"^(async with|await)", block, re.MULTILINE)
    ]
    assert plain
    return "\n\n".join(plain)


def _write(folder: Path, pages: list[str]) -> None:
    folder.mkdir()
    for page in pages:
        (folder / f"{Path(page).stem.lower()}_page.py").write_text(_module(page))


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


def _wrong_lines() -> list[int]:
    return [number for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")]


def test_mypy_finds_the_wrong_calls_and_nothing_in_the_pages(tmp_path: Path) -> None:
    """Each option of `--strict` only adds errors, so that what passes it also passes the default."""
    _write(tmp_path / "pages", PAGES)
    (tmp_path / "wrong.py").write_text(WRONG)
    files = [str(tmp_path / "wrong.py"), *map(str, (tmp_path / "pages").iterdir())]
    done = _run("mypy", "--config-file=", "--strict", *files)
    found = re.findall(r"(\w+)\.py:(\d+): error", done.stdout)
    assert {module for module, _ in found} == {"wrong"}, done.stdout + done.stderr
    assert sorted({int(line) for _, line in found}) == _wrong_lines(), done.stdout


@pytest.mark.long
def test_pyright_finds_the_wrong_calls_and_nothing_in_the_pages(tmp_path: Path) -> None:
    """In both modes: the strict one infers other types for some expressions."""
    for folder in ("standard", "strict"):
        _write(tmp_path / folder, PAGES)
    (tmp_path / "strict" / "wrong.py").write_text(WRONG)
    found = _pyright(tmp_path, "strict")
    assert {Path(file).name for file, _, _ in found} == {"wrong.py"}, found
    assert sorted({line for _, line, _ in found}) == _wrong_lines(), found


def _pyright(folder: Path, strict: str) -> list[tuple[str, int, str]]:
    """File, line and message of each error; a folder may be checked in the strict mode."""
    config = folder / "pyrightconfig.json"
    settings = {
        "typeCheckingMode": "standard",
        "strict": [strict],
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
    }
    config.write_text(json.dumps(settings))
    done = _run("pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(config))
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(list(folder.rglob("*.py"))), done.stdout
    return [
        (each["file"], each["range"]["start"]["line"] + 1, each["message"])
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    ]
