"""The verbs of the command line. Their modules import nothing of the library at first, so that `--help` is quick."""

from spine_async.cli.verbs import execute, inspect, manage, schedules
from spine_async.cli.verbs.application import app

__all__ = ["app", "execute", "inspect", "manage", "schedules"]
