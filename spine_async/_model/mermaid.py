"""Draws the plan of a workflow as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spine_async._model.plan import Plan, PlannedStep, PlannedTarget
from spine_async._model.target import ANY_CATEGORY, END

_SHAPES = {
    "lambda": '["{}"]',
    "pipeline": '[["{}"]]',
    "choice": '{{"{}"}}',
    "wait": '{{{{"{}"}}}}',
    "signal": '>"{}"]',
    "transaction": '[("{}")]',
}
_OTHER_SHAPE = '["{}"]'
_SHOWN = {
    "wait": ("seconds", "until"),
    "signal": ("signal",),
    "pipeline": ("pipeline",),
    "map": ("items",),
    "workflow": ("workflow",),
}
"""The option that the label of a step of this kind contains."""

# In a quoted text of Mermaid, `#` begins a character code, `"` ends the text, a backtick begins Markdown, and the rest
# is HTML.
_CODES = {ord(each): f"#{ord(each)};" for each in '#"`<>&\\'}


def mermaid_of(plan: Plan) -> str:
    """The flowchart as text, without a final newline."""
    title, last = escaped(plan.workflow or "start"), "cleanup" if plan.cleanup else "finish"
    lines = ["flowchart TD", f'    start(["{title}"]) --> s0', *_scope(plan.steps, "s", 1, last)]
    if plan.cleanup:
        lines += ['    subgraph cleanup["cleanup"]', *_inner_scope(plan.cleanup, "cleanup_", 2), "    end"]
        lines.append("    cleanup --> finish")
    return "\n".join([*lines, '    finish(["end"])'])


def escaped(text: str) -> str:
    """Text for the inside of a quoted label."""
    return text.translate(_CODES)


def _scope(steps: Sequence[PlannedStep], prefix: str, depth: int, end: str) -> Iterator[str]:
    """The nodes of a list of steps and the arrows between them.

    Args:
        steps: The steps.
        prefix: Beginning of the ids of the nodes.
        depth: Depth of the indentation.
        end: Id of the node for the end of the list.
    """
    indent = "    " * depth
    ids = {step.name: f"{prefix}{number}" for number, step in enumerate(steps)} | {END: end}
    for step in steps:
        yield from _node(step, ids[step.name], depth)
    for step in steps:
        for target in step.targets:
            yield f"{indent}{ids[step.name]} {_arrow(target)} {ids[target.step]}"


def _node(step: PlannedStep, node: str, depth: int) -> Iterator[str]:
    """The node of a step, with its compensation, or the frame of the steps inside of it."""
    indent = "    " * depth
    if "compensate" in step.options:
        label = f"{escaped(step.options['compensate'])}<br/>compensation"
        yield f'{indent}{node}_undo["{label}"] -.- {node}'
    if not step.inner:
        yield f"{indent}{node}{_SHAPES.get(step.kind, _OTHER_SHAPE).format(_label(step))}"
        return
    yield f'{indent}subgraph {node}["{_label(step)}"]'
    for number, (name, plan) in enumerate(step.inner.items()):
        prefix = f"{node}_{number}_"
        if name:
            yield f'{indent}    subgraph {node}_{number}["{escaped(name)}"]'
        yield from _inner_scope(plan.steps, prefix, depth + (2 if name else 1))
        if name:
            yield f"{indent}    end"
    yield f"{indent}end"


def _inner_scope(steps: Sequence[PlannedStep], prefix: str, depth: int) -> Iterator[str]:
    """The steps of an item or of a branch. Its end is a small circle."""
    yield from _scope(steps, prefix, depth, f"{prefix}end")
    yield f'{"    " * depth}{prefix}end((" "))'


def _label(step: PlannedStep) -> str:
    shown = [step.options[name] for name in _SHOWN.get(step.kind, ()) if name in step.options]
    details = ": ".join([step.kind, *(each for each in shown if each != step.name)])
    return f"{escaped(step.name)}<br/>{escaped(details)}"


def _arrow(target: PlannedTarget) -> str:
    if target.is_failure:
        when = "any other failure" if target.when == ANY_CATEGORY else target.when
        return f'-.->|"{escaped(when)}"|'
    return "-->" if target.when == "next" else f'-->|"{escaped(target.when)}"|'
