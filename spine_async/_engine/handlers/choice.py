"""Executes a choice: evaluates its condition and names the next step."""

from __future__ import annotations

import inspect

from spine_async._engine.state.attempt_frame import visit_of
from spine_async._model.choice_step import ChoiceStep
from spine_async._model.context import WorkflowContext
from spine_async._model.step_result import StepResult
from spine_async._model.target import position_of


async def run_choice(step: ChoiceStep, context: WorkflowContext) -> StepResult:
    """Evaluate the condition.

    Returns:
        Output `{"condition_result": bool, "branch": "then"|"else", "next_step": name|None}`; None ends the scope.
    """
    answer = step.condition(context)
    is_met = bool(await answer if inspect.isawaitable(answer) else answer)
    target = step.then_step if is_met else step.else_step
    return StepResult.ok(
        {
            "condition_result": is_met,
            "branch": "then" if is_met else "else",
            "next_step": visit_of(context).scope.cursor.following if target is None else position_of(target),
        }
    )
