"""The fixtures of `spine_async.testing.plugin`, in a pytest process of a user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.interpreter import environment

TESTS = """
import pytest
from spine_async import Step, Workflow, WorkflowRunnerConfig

pytestmark = pytest.mark.anyio
pay = Step.lambda_("pay", lambda context, config: {"paid": 1})
approval = Workflow("approval", [Step.wait_for_signal("approve"), pay])


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_an_entered_runner(workflow_runner):
    handle = await workflow_runner.start(approval)
    await handle.signal("approve", True)
    assert (await handle.result(30)).context.get_output("pay") == {"paid": 1}


async def test_two_runners_share_the_store(make_runner):
    async with make_runner(work=False) as producer:
        handle = await producer.enqueue(approval, run_id="r")
        await handle.signal("approve", True)
        async with make_runner(workflows=[approval]):
            assert (await handle.result(30)).status == "completed"


async def test_each_test_has_a_store_of_its_own(workflow_runner):
    assert await workflow_runner.list_runs() == []


class TestOverride:
    @pytest.fixture
    def runner_config(self):
        return WorkflowRunnerConfig(max_claims=1)

    async def test_settings(self, workflow_runner):
        assert workflow_runner.config.max_claims == 1
"""


def test_the_fixtures_in_the_tests_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["spine_async.testing.plugin"]\n')
    (tmp_path / "test_approval.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "-c", "/dev/null", "."]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "4 passed" in done.stdout
