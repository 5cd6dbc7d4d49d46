"""Finds what a page would load from other sites: scripts, styles, fonts and pictures. Links are no content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_LOADED = (
    re.compile(
        r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?((?:https?:)?//[^\"'\s>]+)", re.IGNORECASE
    ),
    re.compile(r"<link\b(?![^>]*\brel=[\"']?canonical)[^>]*\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)", re.IGNORECASE),
    re.compile(r"(?:@import|url\()\s*(?:url\()?[\"']?((?:https?:)?//[^\"')\s]+)", re.IGNORECASE),
)


def foreign_content(folder: Path) -> Iterator[tuple[str, str]]:
    """The file of the site and the address, for each thing that a page loads from another site."""
    for file in sorted(folder.rglob("*.html")) + sorted(folder.rglob("*.css")):
        text = file.read_text(encoding="utf-8")
        for pattern in _LOADED:
            yield from ((file.relative_to(folder).as_posix(), address) for address in pattern.findall(text))
