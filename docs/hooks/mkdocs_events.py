"""The events of mkdocs that the site handles: links to source files, plain Markdown beside each page, `llms.txt`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foreign_content import foreign_content
from language_models import Chapter, Entry, full_text, index_text
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page
from plain_reference import with_reference
from site_links import with_site_links
from source_pages import exists_in, source_pages

_log = logging.getLogger("mkdocs.hooks.mkdocs_events")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that show linked files and folders of the repository."""
    pages = [f"docs/{each.src_uri}" for each in files.documentation_pages()]
    for uri, text in source_pages(_root(config), pages):
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change the links of a page to those of the site, and tell the search which pages people look for first."""
    page.meta["search"] = _search_options(page.file)
    if page.file.generated_by is not None:
        return markdown
    return with_site_links(markdown, f"docs/{page.file.src_uri}", exists_in(_root(config)))


def on_page_context(context: Any, *, page: Page, config: MkDocsConfig, nav: Navigation) -> None:
    """Write the page as plain Markdown, and with the home page the files for language models."""
    _write(config, page.file.src_uri, _plain(page))
    if page.is_homepage:
        chapters = list(_chapters(nav))
        _write(config, "llms.txt", index_text(config.site_name, chapters))
        _write(config, "llms-full.txt", full_text(chapters))


def on_post_build(*, config: MkDocsConfig) -> None:
    """Warn of content of other sites, and of directives that are left in plain pages; a strict build refuses both."""
    site = Path(config.site_dir)
    for file, address in foreign_content(site):
        _log.warning("%s loads %s from another site", file, address)
    for page in sorted(site.rglob("*.md")):
        if "\n::: " in page.read_text(encoding="utf-8"):
            _log.warning("%s has a directive of mkdocstrings instead of text", page.relative_to(site))


def _search_options(file: File) -> dict[str, Any]:
    """Source files are not searched; the reference and decisions come after the pages that explain."""
    if file.generated_by is not None:
        return {"exclude": True}
    return {"boost": 0.02 if file.src_uri.startswith(("reference/api/", "decisions/")) else 1}


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent


def _plain(page: Page) -> str:
    return with_reference(page.markdown or "")


def _write(config: MkDocsConfig, uri: str, text: str) -> None:
    path = Path(config.site_dir, uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _chapters(nav: Navigation) -> Iterator[Chapter]:
    """The sections of the navigation; pages outside of all sections are the first chapter."""
    top = [each for each in nav.items if isinstance(each, Page)]
    yield Chapter("Start", [_entry(page) for page in top])
    for section in nav.items:
        if isinstance(section, Section):
            yield Chapter(section.title, [_entry(page) for page in _pages(section)])


def _pages(section: Section) -> Iterator[Page]:
    for each in section.children:
        if isinstance(each, Page):
            yield each
        elif isinstance(each, Section):
            yield from _pages(each)


def _entry(page: Page) -> Entry:
    return Entry(str(page.title), page.file.src_uri, _plain(page))
