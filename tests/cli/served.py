"""An application with a runner of its own."""

from __future__ import annotations

from spine_async import WorkflowRunner, WorkflowRunnerConfig
from tests.cli.flows import ask, greet

runner = WorkflowRunner(workflows=[greet, ask], config=WorkflowRunnerConfig(database_url="sqlite:///served.db"))
idle = WorkflowRunner(workflows=[greet], work=False)
listed = [greet, ask]
by_name = {"greet": greet}
number = 7
