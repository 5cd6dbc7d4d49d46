"""Protection against other sites: headers of answers, and the check that a page of the dashboard has sent a form."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`, with which browsers send `Origin: null` with forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ENCODED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_CACHE = b"cache-control"


class SecureHeaders:
    """ASGI middleware that adds the headers to every answer. Pages are not cached, because they show data of users.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                if not any(name.lower() == _CACHE for name, _ in given):
                    given.append((_CACHE, b"no-store"))
                message = {**message, "headers": [*given, *_ENCODED]}
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def check_same_origin(request: Request) -> None:
    """Refuse a form that was not sent by a page of this origin.

    Browsers send `Sec-Fetch-Site` to HTTPS and to localhost, and `Origin` with every form. A request with neither is
    refused.

    Raises:
        HTTPException: It is refused (403).
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        is_same = site == "same-origin"
    else:
        origin = request.headers.get("origin")
        is_same = origin is not None and _host(origin) == request.headers.get("host", "").lower()
    if not is_same:
        raise HTTPException(403, "The form was not sent by a page of this dashboard, so nothing was done.")


def _host(origin: str) -> str | None:
    """The host and port of an origin, in the form of a `Host` header; None if it has none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
