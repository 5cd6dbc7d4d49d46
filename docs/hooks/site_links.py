"""Links of a page, on the site and on the host of the repository.

A page links to a file by its relative path in the repository. On the site, a file that is no page has a page of its own
below `source/`, and the links of a page are changed to lead there. All paths are relative to the repository, with `/`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator

Exists = Callable[[str], bool]

_DOCS = "docs/"
_COPIED = frozenset({".md", ".svg", ".png"})
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[\w-]+)?\))")
_FENCE = re.compile(r" *(```|~~~)")


def site_uri(path: str) -> str:
    """The file of the site, as a source file of mkdocs, that shows a file or folder of the repository."""
    suffix = posixpath.splitext(path)[1]
    if path.startswith(_DOCS) and suffix in _COPIED:
        return path.removeprefix(_DOCS)
    return f"source/{path}" if suffix == ".md" else f"source/{path}.md"


def linked_paths(markdown: str, page: str, exists: Exists) -> Iterator[str]:
    """The existing paths to which a page links.

    Args:
        markdown: Text of the page.
        page: Path of the page.
        exists: Tells whether a path exists.
    """
    for line, is_code in _lines(markdown):
        targets = [] if is_code else [match[2] for match in _LINK.finditer(line)]
        paths = [_resolved(target, page) for target in targets]
        yield from (path for path in paths if path is not None and exists(path))


def with_site_links(markdown: str, page: str, exists: Exists) -> str:
    """The page with links that lead to files of the site; links to paths that do not exist are left as they are."""
    folder = posixpath.dirname(site_uri(page)) or "."

    def changed(match: re.Match[str]) -> str:
        path = _resolved(match[2], page)
        if path is None or not exists(path):
            return match[0]
        return match[1] + posixpath.relpath(site_uri(path), folder) + match[3]

    return "".join(line if is_code else _LINK.sub(changed, line) for line, is_code in _lines(markdown))


def _resolved(target: str, page: str) -> str | None:
    """The path that a link names; None for a link to another site."""
    if ":" in target or target.startswith("/"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def _lines(markdown: str) -> Iterator[tuple[str, bool]]:
    """The lines with their ends, and whether each belongs to a code block."""
    is_code = False
    for line in markdown.splitlines(keepends=True):
        is_fence = _FENCE.match(line) is not None
        yield line, is_code or is_fence
        is_code ^= is_fence
