"""The files that pages refer to: the style sheet, the script, and htmx. They are read once, and cached by browsers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    "spine.css": "text/css; charset=utf-8",
    "spine.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_YEAR = 31_536_000


@dataclass(frozen=True, slots=True)
class Asset:
    """A file with its media type; `version` changes with its content."""

    content: bytes
    media_type: str
    version: str


def load_assets() -> Mapping[str, Asset]:
    """All files by name."""
    folder = files("spine_async.dashboard") / "static"
    assets = {}
    for name, media_type in _TYPES.items():
        content = (folder / name).read_bytes()
        assets[name] = Asset(content, media_type, hashlib.sha256(content).hexdigest()[:12])
    return assets


ASSETS = load_assets()


async def send_asset(request: Request) -> Response:
    """Answer a request for a file; 404 if there is none."""
    asset = ASSETS.get(request.path_params["name"])
    if asset is None:
        return Response("not found", 404, media_type="text/plain")
    headers = {"Cache-Control": f"public, max-age={_YEAR}, immutable", "ETag": f'"{asset.version}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)
