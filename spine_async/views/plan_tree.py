"""The plan of a workflow as a tree of text lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spine_async._model.plan import Plan, PlannedStep, PlannedTarget
from spine_async._model.target import ANY_CATEGORY, END

_DETAILS = ("handler", "pipeline", "condition", "items", "signal", "seconds", "until", "workflow", "need")
"""Options in the order of importance. A line contains the first two that are set."""


def plan_tree(plan: Plan) -> list[str]:
    """The lines of the tree: the steps in order, what is executed inside of them, and where they jump to."""
    head = f"{plan.workflow or 'steps'} (version {plan.version})"
    cleanup = ["cleanup", *_branches(plan.cleanup)] if plan.cleanup else []
    return [head, *_branches(plan.steps), *cleanup]


def _branches(steps: Sequence[PlannedStep]) -> Iterator[str]:
    for number, step in enumerate(steps):
        is_last = number == len(steps) - 1
        yield f"{'└─' if is_last else '├─'} {_line(step, steps[number + 1].name if not is_last else END)}"
        for line in _inside(step):
            yield f"{'  ' if is_last else '│ '} {line}"


def _inside(step: PlannedStep) -> Iterator[str]:
    """The lines of what is executed inside of a step."""
    if set(step.inner) == {""}:
        yield from _branches(step.inner[""].steps)
        return
    for number, (name, plan) in enumerate(step.inner.items()):
        is_last = number == len(step.inner) - 1
        yield f"{'└─' if is_last else '├─'} [{name}]"
        for line in _branches(plan.steps):
            yield f"{'  ' if is_last else '│ '} {line}"


def _line(step: PlannedStep, following: str) -> str:
    details = [step.options[name] for name in _DETAILS if name in step.options and step.options[name] != step.name]
    undo = f"  undone by {step.options['compensate']}" if "compensate" in step.options else ""
    kind = " ".join([step.kind, *details[:2]])
    jumps = "".join(f"  {_jump(each)}" for each in step.targets if each.when != "next" or each.step != following)
    return f"{step.name}  {kind}{undo}{jumps}"


def _jump(target: PlannedTarget) -> str:
    when = "any other failure" if target.when == ANY_CATEGORY else target.when
    where = "end" if target.step == END else target.step
    return f"→ {where}" if target.when == "next" else f"{when} → {where}"
