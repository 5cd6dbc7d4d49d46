"""Draws the layers of the import contracts in pyproject.toml into docs/contributing.md.

python docs/draw_layers.py          # updates the page
python docs/draw_layers.py --check  # exits with status 1 if the page is out of date
"""  # noqa: INP001 - a script

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "contributing.md"
BEGIN, END = "<!-- layers: begin -->", "<!-- layers: end -->"


def layers_block(project: Mapping[str, Any]) -> str:
    """The text between the two markers: a picture for each container of each contract of type `layers`.

    Args:
        project: The parsed pyproject.toml.
    """
    linter = project["tool"]["importlinter"]
    roots = [linter["root_package"]] if "root_package" in linter else linter["root_packages"]
    contracts = [each for each in linter["contracts"] if each["type"] == "layers"]
    pictures = [picture for each in contracts for picture in _pictures(each, roots)]
    return "\n\n".join(f"```text\n{picture}\n```" for picture in pictures)


def updated(page: str, block: str) -> str:
    """The page with the block between its markers.

    Raises:
        ValueError: The page does not have each marker once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page needs {BEGIN} and, after it, {END}, each once")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"


def _pictures(contract: Mapping[str, Any], roots: Iterable[str]) -> list[str]:
    containers: list[str] = contract.get("containers", [])
    if not containers:
        return [_picture(_common_root(contract["layers"], roots), contract)]
    return [_picture(container, contract) for container in containers]


def _common_root(layers: Iterable[str], roots: Iterable[str]) -> str:
    """The root package whose name starts each layer; "" if there is no such package."""
    modules = [module for layer in layers for module in _modules(layer)]
    for root in roots:
        if all(module.strip("()").startswith(f"{root}.") for module in modules):
            return root
    return ""


def _modules(layer: str) -> list[str]:
    return layer.replace("|", " ").replace(":", " ").split()


def _picture(package: str, contract: Mapping[str, Any]) -> str:
    """A column of boxes, the top layer first."""
    lines = [layer.replace(f"{package}.", "") if package else layer for layer in contract["layers"]]
    width = max(map(len, lines))
    rule = "─" * (width + 2)
    boxes = f"\n├{rule}┤\n".join(f"│ {line:<{width}} │" for line in lines)
    title = f"{package}: {contract['name']}" if package else contract["name"]
    return f"{title}\n┌{rule}┐\n{boxes}\n└{rule}┘"


def main(arguments: list[str]) -> int:
    """Update the page, or check it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    new = updated(page, layers_block(project))
    if "--check" in arguments:
        if new != page:
            sys.stderr.write("docs/contributing.md is out of date; run `python docs/draw_layers.py`\n")
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
