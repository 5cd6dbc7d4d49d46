"""A run whose process is killed in its second step, and a process that finds it afterwards."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from tests.interpreter import ROOT, environment

_PROGRAM = """
    import anyio, os, sys
    from spine_async import Step, Workflow, WorkflowRunner, WorkflowRunnerConfig
    storage, option, place, mode = sys.argv[1:]
    async def first(context, config):
        return {"by": os.getpid()}
    async def second(context, config):
        if mode == "dies":
            os.kill(os.getpid(), 9)
        print("first by", context.get_output("first", "by") == os.getpid(), flush=True)
    workflow = Workflow("w", [Step.lambda_("first", first), Step.lambda_("second", second)])
    async def main():
        config = WorkflowRunnerConfig(checkpoint_storage=storage, **{option: place})
        async with WorkflowRunner(config=config, workflows=[workflow]) as runner:
            if mode == "dies":
                await runner.execute(workflow, run_id="r")
            print((await runner.handle("r").result(timeout=60)).status.value, flush=True)
    anyio.run(main)
"""


def run_python(program: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a program to its end in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, args)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def check_take_over(storage: str, option: str, place: object) -> None:
    """Kill a process in the second step of a run; the next process must execute that step only.

    Args:
        storage: Value of `checkpoint_storage`.
        option: Setting that names the place of the store.
        place: Its value.
    """
    assert run_python(_PROGRAM, storage, option, place, "dies").returncode == -9
    ended = run_python(_PROGRAM, storage, option, place, "lives")
    assert ended.stdout.splitlines() == ["first by False", "completed"], ended.stderr
