"""A release as a graph: two builds of different length at the same time, tests after one of them, then publishing."""

from __future__ import annotations

from typing import Any

from spine_async import RetryPolicy, Step, Workflow, WorkflowContext


async def checkout(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {"commit": f"{context.params['tag']}-c0ffee"}


async def build(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {"file": f"{config['kind']} of {context.get_output('checkout', 'commit')}"}


async def run_tests(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    if context.attempt == 1:
        raise ConnectionError("the test machine is starting")
    return {"passed": context.get_output("wheel", "file")}


async def publish(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    builds = context.get_output("builds")
    return {"published": [builds["package"]["passed"], builds["manual"]["file"]]}


PATIENT = RetryPolicy(delays=[0.01, 0.02])
WORKFLOW = Workflow(
    "release",
    [
        Step.lambda_("checkout", checkout),
        Step.parallel(
            "builds",
            {
                "package": [
                    Step.lambda_("wheel", build, config={"kind": "wheel"}),
                    Step.lambda_("test", run_tests, on_error="retry", retry=PATIENT),
                ],
                "manual": Step.lambda_("html", build, config={"kind": "html"}),
            },
        ),
        Step.lambda_("publish", publish),
    ],
)
