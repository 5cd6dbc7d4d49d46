"""The docs hold together: links lead somewhere, and the tests that the guarantees name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "tests" / "README.md",
    *sorted((ROOT / "benchmarks").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PLACES = {"conformance/": ROOT / "spine_async" / "testing", "": ROOT / "tests"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)", page.read_text())
    for target, heading in links:
        if "://" not in target:
            found = (page.parent / target) if target else page
            assert found.exists(), target
            if heading:
                assert heading in _anchors(found), heading


@pytest.mark.parametrize(("page", "least"), [("docs/guarantees.md", 60), ("tests/README.md", 2)])
def test_the_tests_that_a_page_names_exist(page: str, least: int) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / page).read_text())
    assert len(named) >= least
    for file, test in named:
        folder = next(place for prefix, place in PLACES.items() if file.startswith(prefix))
        assert f"def {test}(" in (folder / file).read_text(), f"{file}::{test}"


@pytest.mark.parametrize("package", ["_engine", "storage/sql", "storage/file", "storage/redis"])
def test_the_map_names_every_module(package: str) -> None:
    page = (ROOT / "docs" / "contributing.md").read_text()
    named = set(re.findall(r"`(?:[\w/]+/)?(\w+)(?:\.py)?`", page))
    modules = {path.stem for path in (ROOT / "spine_async" / package).rglob("*.py")} - {"__init__"}
    assert modules - named == set()


def test_the_docs_name_every_error() -> None:
    errors = re.findall(r"^class (\w+)\(", (ROOT / "spine_async" / "errors.py").read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "errors.md").read_text()
    assert [name for name in errors if name not in page] == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
