"""`llms.txt` and `llms-full.txt`: the site as language models read it (https://llmstxt.org)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SUMMARY = (
    "Durable workflows for async Python. A workflow is a list of steps. The result of each step is stored before the "
    "next one begins, so a run continues after a crash. Runs are stored in SQLite, PostgreSQL, a folder or Redis."
)


class Entry(NamedTuple):
    """A page of the site."""

    title: str
    uri: str
    markdown: str


class Chapter(NamedTuple):
    """A section of the navigation."""

    title: str
    entries: Sequence[Entry]


def index_text(name: str, chapters: Iterable[Chapter]) -> str:
    """The text of `llms.txt`: a link with a description for each page."""
    sections = [
        f"## {chapter.title}\n\n"
        + "".join(f"- [{each.title}]({each.uri}){_description(each)}\n" for each in chapter.entries)
        for chapter in chapters
    ]
    return "\n".join([f"# {name}\n\n> {SUMMARY}\n", *sections])


def full_text(chapters: Iterable[Chapter]) -> str:
    """The text of `llms-full.txt`: all pages, one after the other."""
    pages = [each for chapter in chapters for each in chapter.entries]
    return "\n".join(f"<!-- {each.uri} -->\n\n{each.markdown.strip()}\n" for each in pages)


def _description(entry: Entry) -> str:
    """The first sentence below the title of a page."""
    text = re.sub(r"^#.*$", "", entry.markdown, count=1, flags=re.MULTILINE).strip()
    paragraph = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text.partition("\n\n")[0].replace("\n", " "))
    if not paragraph[:1].isalpha() and not paragraph.startswith("`"):
        return ""
    return ": " + re.split(r"(?<=\.)\s", paragraph)[0].rstrip(":")
