"""Pages of the site that show files and folders of the repository to which other pages link."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from site_links import linked_paths, site_uri, with_site_links

_LANGUAGES = {
    ".py": "python",
    ".toml": "toml",
    ".sql": "sql",
    ".lua": "lua",
    ".html": "html",
    ".css": "css",
    ".js": "js",
}
_HIDDEN = ("__", ".")
_QUOTES = '"'


def source_pages(root: Path, pages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The file name on the site and the text of each page that is needed so that all links lead somewhere.

    Args:
        root: Folder of the repository.
        pages: Paths of the pages in the repository.
    """
    waiting, done = list(pages), set(pages)
    while waiting:
        path = waiting.pop()
        if site_uri(path).startswith("source/"):
            yield site_uri(path), with_site_links(_text(root, path), path, exists_in(root))
        if path.endswith(".md") or (root / path).is_dir():
            linked = set(linked_paths(_text(root, path), path, exists_in(root))) - done
            done |= linked
            waiting += sorted(linked)


def exists_in(root: Path) -> Callable[[str], bool]:
    """Tells whether a path exists in the repository."""
    return lambda path: not path.startswith("..") and (root / path).exists()


def _text(root: Path, path: str) -> str:
    """The Markdown text of a page that shows this file or folder."""
    place = root / path
    if place.is_dir():
        return _listing(place, path)
    if place.suffix == ".md":
        return place.read_text(encoding="utf-8")
    if place.suffix in {".svg", ".png"}:
        return ""
    text = place.read_text(encoding="utf-8")
    return f"# {path}\n\n````{_LANGUAGES.get(place.suffix, 'text')}\n{text}````\n"


def _listing(folder: Path, path: str) -> str:
    files = [each for each in sorted(folder.iterdir()) if not each.name.startswith(_HIDDEN)]
    return f"# {path}\n\n" + "".join(f"- {_entry(each, folder)}\n" for each in files)


def _entry(file: Path, folder: Path) -> str:
    link = f"{folder.name}/{file.name}"
    if file.suffix == ".md":
        return f"[{_first_line(file).removeprefix('# ')}]({link})"
    if file.suffix in _LANGUAGES:
        return f"[{file.name}]({link}): {_first_line(file).strip(_QUOTES)}"
    return f"`{file.name}`"


def _first_line(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].strip()
