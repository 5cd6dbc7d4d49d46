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

async def lists(runner: WorkflowRunner) -> None:
    await runner.list_runs(status="failed")
    await runner.list_runs(status="done")  # wrong
"""


def _module(page: str, folder: Path) -> Path:
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    plain = [
        block
        for block in blocks
        if not any(word in block for word in _OTHER_FRAMEWORK)
        if not re.search(r"^(async with|await)", block, re.MULTILINE)
        and not re.search(r"^(async with|await)", block, re.MULTILINE)
    ]
    assert plain
    path = folder / f"{Path(page).stem.lower()}_page.py"
    path.write_text("\n\n".join(plain))
    return path


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pages")
    return [str(_module(page, folder)) for page in PAGES]


@pytest.mark.parametrize("strict", [[], ["--strict"]])
def test_the_pages_pass_mypy(modules: list[str], strict: list[str]) -> None:
    done = _run("mypy", "--config-file=", *strict, *modules)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["standard", "strict"])
def test_the_pages_pass_pyright(modules: list[str], mode: str) -> None:
    found = _pyright(Path(modules[0]).parent, mode)
    assert found == []


def test_wrong_calls_are_found(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    wrong = [number for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")]
    done = _run("mypy", "--config-file=", "--strict", str(path))
    assert sorted({int(each) for each in re.findall(r"wrong\.py:(\d+): error", done.stdout)}) == wrong, done.stdout
    found = _pyright(tmp_path, "strict")
    assert sorted({int(each.split(":")[1]) for each in found}) == wrong, found


def _pyright(folder: Path, mode: str) -> list[str]:
    config = folder / "pyrightconfig.json"
    settings = {"typeCheckingMode": mode, "extraPaths": [str(ROOT)], "pythonVersion": "3.11"}
    config.write_text(json.dumps(settings))
    done = _run("pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(config))
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(list(folder.glob("*.py"))), done.stdout
    return [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    ]
