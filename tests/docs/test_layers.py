"""The picture of the layers in `docs/contributing.md` shows the import contracts."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "draw_layers.py"

PROJECT = """
[tool.importlinter]
root_package = "house"

[[tool.importlinter.contracts]]
name = "An import goes down"
type = "layers"
layers = ["house.roof", "house.kitchen | house.hall : house.stairs", "(house.cellar)"]

[[tool.importlinter.contracts]]
name = "No garden"
type = "forbidden"
source_modules = ["house"]
forbidden_modules = ["garden"]

[[tool.importlinter.contracts]]
name = "Floors of a room"
type = "layers"
containers = ["house.kitchen", "house.hall"]
layers = ["table", "floor"]
"""

BLOCK = """\
```text
house: An import goes down
┌─────────────────────────┐
│ roof                    │
├─────────────────────────┤
│ kitchen | hall : stairs │
├─────────────────────────┤
│ (cellar)                │
└─────────────────────────┘
```

```text
house.kitchen: Floors of a room
┌───────┐
│ table │
├───────┤
│ floor │
└───────┘
```

```text
house.hall: Floors of a room
┌───────┐
│ table │
├───────┤
│ floor │
└───────┘
```"""


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_the_page_is_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, encoding="utf-8", check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_each_contract_and_container_has_a_picture(script: dict[str, Any]) -> None:
    assert script["layers_block"](tomllib.loads(PROJECT)) == BLOCK


def test_layers_of_several_packages_keep_their_names(script: dict[str, Any]) -> None:
    contract = {"name": "Two houses", "type": "layers", "layers": ["house.roof", "shed.roof"]}
    linter = {"root_packages": ["house", "shed"], "contracts": [contract]}
    block = script["layers_block"]({"tool": {"importlinter": linter}})
    assert "Two houses\n" in block
    assert "│ house.roof │\n" in block


def test_an_update_replaces_only_the_block(script: dict[str, Any]) -> None:
    page = "before\n<!-- layers: begin -->\n\nold\n\n<!-- layers: end -->\nafter\n"
    updated = script["updated"](page, "new")
    assert updated == page.replace("old", "new")
    assert script["updated"](updated, "new") == updated


@pytest.mark.parametrize("page", ["", "<!-- layers: end --> <!-- layers: begin -->", "<!-- layers: begin -->" * 2])
def test_a_page_without_its_markers_is_refused(script: dict[str, Any], page: str) -> None:
    with pytest.raises(ValueError, match="each once"):
        script["updated"](page, "new")
