"""Two of three referees must agree; the third one is not waited for."""

from __future__ import annotations

from typing import Any

from spine_async import Step, Workflow, WorkflowContext

REFEREES = ("ann", "bob", "cy")


async def summarise(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    votes = context.get_output("votes")
    answered = {name: vote["value"]["accepts"] for name, vote in votes.items() if vote is not None}
    return {"accepted": all(answered.values()), "referees": sorted(answered)}


WORKFLOW = Workflow(
    "paper",
    [
        Step.parallel(
            "votes", {name: Step.wait_for_signal("vote", signal=f"vote of {name}") for name in REFEREES}, need=2
        ),
        Step.lambda_("summarise", summarise),
    ],
)
