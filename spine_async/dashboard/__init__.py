"""Pages in a browser that show runs, queues and schedules."""

from spine_async.errors import MissingExtraError

try:
    import jinja2  # noqa: F401
    import starlette  # noqa: F401
except ImportError as exc:
    raise MissingExtraError("the dashboard", "dashboard") from exc

from spine_async.dashboard.access import Access
from spine_async.dashboard.app import dashboard

__all__ = ["Access", "dashboard"]
