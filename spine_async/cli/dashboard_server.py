"""The command `ui`: serves the dashboard."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from spine_async.cli.exit_code import ExitCode
from spine_async.cli.output import Output
from spine_async.cli.place import Place
from spine_async.cli.problem import CommandError
from spine_async.dashboard import dashboard
from spine_async.errors import MissingExtraError

try:
    import uvicorn
except ImportError as exc:
    raise MissingExtraError("serving the dashboard", "cli") from exc

_GRACE = 3  # seconds for open requests
_LOCAL = ("127.0.0.1", "localhost")


async def serve_dashboard(output: Output, place: Place, host: str, port: int, *, is_read_only: bool) -> int:
    """Serve the dashboard until Ctrl-C or SIGTERM.

    If the server listens only on an address of this machine, requests with another host name are refused. Otherwise a
    page of another site could reach the dashboard under a name of its own (DNS rebinding).
    """
    app: ASGIApp = dashboard(place.runner(), access=lambda request: "read" if is_read_only else "all")
    if host in _LOCAL:
        app = TrustedHostMiddleware(app, allowed_hosts=list(_LOCAL), www_redirect=False)
    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE, lifespan="on"
    )
    server = _Server(config, output, place.shown)
    try:
        await server.serve()
    except SystemExit:  # uvicorn has logged the reason
        raise CommandError(f"{host}:{port} cannot be served; give another --port") from None
    return ExitCode.COMPLETED


class _Server(uvicorn.Server):
    """A server that prints its address when it is ready. A signal that ends it is not raised again."""

    def __init__(self, config: uvicorn.Config, output: Output, shown: str) -> None:
        super().__init__(config)
        self._output = output
        self._shown = shown

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            address = f"http://{self.config.host}:{port}"
            if self._output.is_json:
                self._output.json({"url": address})
            self._output.line(f"dashboard of {self._shown}: {address}")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals end the server inside the context."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
