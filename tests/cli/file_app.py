"""An application whose runner keeps its runs in the file store of the working directory."""

from __future__ import annotations

from spine_async import WorkflowRunner, WorkflowRunnerConfig
from tests.cli.flows import ask, greet

runner = WorkflowRunner(
    workflows=[ask, greet], config=WorkflowRunnerConfig(checkpoint_storage="file", checkpoint_dir="runs")
)
