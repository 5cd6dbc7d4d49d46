"""The documentation site: its navigation, its reference pages, and the hooks that make it. `nox -s docs` builds it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spine_async
from spine_async import EventType, RetryPolicy, WorkflowRunnerConfig, errors, storage, testing
from spine_async.storage import port

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
DIRECTIVES = [
    name
    for page in sorted((REFERENCE / "api").glob("*.md"))
    for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)
]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a module of `docs/hooks`, which find each other as mkdocs makes them."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    return importlib.import_module


def test_the_reference_has_each_public_name_once() -> None:
    described = [name.rsplit(".", 1)[1] for name in DIRECTIVES]
    assert len(set(described)) == len(described)
    public = {*spine_async.__all__, *storage.__all__, *port.__all__, *testing.__all__} - {"__version__"}
    public |= {name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")}
    assert public - set(described) == set()


@pytest.mark.parametrize("name", DIRECTIVES)
def test_what_the_reference_names_can_be_imported(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_the_settings_are_those_of_the_config() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", (REFERENCE / "settings.md").read_text(), re.MULTILINE)
    described = {name: eval(default, {"RetryPolicy": RetryPolicy}) for name, default in rows}
    assert described == {name: field.default for name, field in WorkflowRunnerConfig.model_fields.items()}


def test_the_events_are_those_of_the_runner() -> None:
    page = (REFERENCE / "events.md").read_text()
    named = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    assert set(EventType) <= set(re.findall(r"`(\w+)`", " ".join(named)))


def test_links_lead_to_files_of_the_site(hook: Callable[[str], Any]) -> None:
    page = (
        "[a](tutorial.md#first) [b](../tests/README.md) [c](examples/flows/) [d](examples/stocks/flow.py) ![e](p.svg)\n"
        "[gone](missing.md) [web](https://example.org/a.md) [here](#below)\n"
        "```python\n[x](tutorial.md)\n```\n"
    )
    existing = {
        "docs/tutorial.md",
        "tests/README.md",
        "docs/examples/flows",
        "docs/examples/stocks/flow.py",
        "docs/p.svg",
    }
    links = hook("site_links")
    assert links.with_site_links(page, "docs/index.md", existing.__contains__) == (
        "[a](tutorial.md#first) [b](source/tests/README.md) [c](source/docs/examples/flows.md) "
        "[d](source/docs/examples/stocks/flow.py.md) ![e](p.svg)\n"
        "[gone](missing.md) [web](https://example.org/a.md) [here](#below)\n"
        "```python\n[x](tutorial.md)\n```\n"
    )
    assert set(links.linked_paths(page, "docs/index.md", existing.__contains__)) == existing


def test_a_page_below_links_upwards(hook: Callable[[str], Any]) -> None:
    links = hook("site_links")
    changed = links.with_site_links(
        "[a](../../noxfile.py)", "docs/reference/telemetry.md", lambda path: path == "noxfile.py"
    )
    assert changed == "[a](../source/noxfile.py.md)"


def test_linked_files_and_their_links_have_pages(hook: Callable[[str], Any], tmp_path: Path) -> None:
    files = {
        "docs/index.md": "[tests](../tests/README.md) [examples](examples/)",
        "docs/examples/one.py": '"""The first one."""\nprint(1)\n',
        "docs/examples/data.csv": "1,2\n",
        "tests/README.md": "# Tests\n\n[back](../docs/index.md) [code](run.py)",
        "tests/run.py": "pass\n",
        "tests/other.py": "not linked\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    pages = dict(hook("source_pages").source_pages(tmp_path, ["docs/index.md"]))
    assert pages == {
        "source/tests/README.md": "# Tests\n\n[back](../../index.md) [code](run.py.md)",
        "source/tests/run.py.md": "# tests/run.py\n\n````python\npass\n````\n",
        "source/docs/examples.md": (
            "# docs/examples\n\n- `data.csv`\n- [one.py](examples/one.py.md): The first one.\n"
        ),
        "source/docs/examples/one.py.md": (
            '# docs/examples/one.py\n\n````python\n"""The first one."""\nprint(1)\n````\n'
        ),
    }


def test_language_models_get_an_index_and_the_whole_text(hook: Callable[[str], Any]) -> None:
    models = hook("language_models")
    pages = [
        models.Entry("Signals", "signals.md", "# Signals\n\nA [signal](a.md) is a value. It is sent.\n"),
        models.Entry("Events", "events.md", "# Events\n\n- a list\n"),
    ]
    chapters = [models.Chapter("Learn", pages)]
    index = models.index_text("spine_async", chapters)
    assert index.startswith("# spine_async\n\n> Durable workflows")
    assert index.endswith("## Learn\n\n- [Signals](signals.md): A signal is a value.\n- [Events](events.md)\n")
    assert models.full_text(chapters) == (
        "<!-- signals.md -->\n\n# Signals\n\nA [signal](a.md) is a value. It is sent.\n\n"
        "<!-- events.md -->\n\n# Events\n\n- a list\n"
    )


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>', "https://cdn.example/x.js"),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/f.css">', "//fonts.example/f.css"),
        ("a.html", "<img alt='' src='https://pictures.example/1.png'>", "https://pictures.example/1.png"),
        ("a.css", "@font-face { src: url(https://fonts.example/f.woff2) }", "https://fonts.example/f.woff2"),
        ("a.html", '<a href="https://example.org">a link</a> <link rel="canonical" href="https://example.org">', None),
        ("a.html", '<script src="local.js"></script>', None),
    ],
)
def test_content_of_other_sites_is_found(
    hook: Callable[[str], Any], tmp_path: Path, name: str, text: str, found: str | None
) -> None:
    (tmp_path / name).write_text(text)
    assert list(hook("foreign_content").foreign_content(tmp_path)) == ([(name, found)] if found else [])
