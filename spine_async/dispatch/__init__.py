"""Dispatchers, which run pipelines."""

from spine_async.dispatch.local import LocalDispatcher
from spine_async.ports.dispatcher import Dispatcher

__all__ = ["Dispatcher", "LocalDispatcher"]
