"""Places the steps of a plan in a picture: boxes from top to bottom, with arrows between them.

Theory of operation: the steps of a list stand below each other in their order, so the usual arrow leads straight down.
Every other arrow runs in a lane of its own to the right of the boxes. A step that executes others is a frame around
them; the branches of a parallel step stand side by side. A frame is placed like a box, so the layout is recursive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from spine_async._model.plan import Plan, PlannedStep, PlannedTarget
from spine_async._model.status import StepType
from spine_async._model.target import END

BOX_WIDTH, BOX_HEIGHT = 200, 44
GAP = 28
LANE = 16
MARGIN = 12
HEADER = 30
DOT = 10


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A box or a frame. Lengths are in pixels.

    Attributes:
        path: Path of the visits of the step without their numbers, such as `child/load` or `both[a]/load`; None inside
            of a map, whose items have different paths.
        is_frame: Whether other boxes are inside of it.
        title: For the frame of a branch, its name; else "".
    """

    name: str
    kind: str
    path: str | None
    x: float
    y: float
    width: float
    height: float
    is_frame: bool = False
    title: str = ""


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """An arrow along these points.

    Attributes:
        label: When the arrow is followed; "" for the usual one.
        is_failure: Whether it follows a failure.
    """

    points: tuple[tuple[float, float], ...]
    label: str = ""
    is_failure: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """A picture of a plan: frames before the boxes inside of them, arrows, and the dots of beginnings and ends."""

    width: float
    height: float
    nodes: Sequence[GraphNode]
    edges: Sequence[GraphEdge]
    dots: Sequence[tuple[float, float]]


@dataclass(slots=True)
class _Block:
    """A part of the picture with its own origin."""

    width: float = 0.0
    height: float = 0.0
    nodes: list[GraphNode] = field(default_factory=list)
    edges: list[GraphEdge] = field(default_factory=list)
    dots: list[tuple[float, float]] = field(default_factory=list)

    def add(self, other: _Block, x: float, y: float) -> None:
        """Place another block inside of this one."""
        self.nodes += [replace(each, x=each.x + x, y=each.y + y) for each in other.nodes]
        self.edges += [replace(each, points=tuple((px + x, py + y) for px, py in each.points)) for each in other.edges]
        self.dots += [(px + x, py + y) for px, py in other.dots]


def graph_of(plan: Plan) -> Graph:
    """The picture of a plan.

    Example:
        >>> from spine_async import Step, Workflow
        >>> graph = graph_of(Workflow("w", [Step.wait("nap", 1), Step.wait("again", 2)]).plan())
        >>> [(node.path, node.kind) for node in graph.nodes], len(graph.edges)
        ([('nap', 'wait'), ('again', 'wait')], 3)
    """
    block = _scope(plan.steps, "")
    if plan.cleanup:
        cleanup = _frame(PlannedStep("cleanup", "cleanup", {}, ()), [("", _scope(plan.cleanup, ""))], None)
        block.add(cleanup, 0, block.height + GAP)
        block.height += GAP + cleanup.height
        block.width = max(block.width, cleanup.width)
    return Graph(
        block.width + 2 * MARGIN,
        block.height + 2 * MARGIN,
        *_moved(block),
    )


def _moved(block: _Block) -> tuple[list[GraphNode], list[GraphEdge], list[tuple[float, float]]]:
    moved = _Block()
    moved.add(block, MARGIN, MARGIN)
    return moved.nodes, moved.edges, moved.dots


def _scope(steps: Sequence[PlannedStep], prefix: str | None) -> _Block:
    """The steps of a list below each other, with a dot above and one below."""
    blocks = [_step(each, prefix) for each in steps]
    width = max((each.width for each in blocks), default=BOX_WIDTH)
    scope, middle = _Block(width), width / 2
    scope.dots.append((middle, DOT / 2))
    y, tops, bottoms = float(DOT + GAP), dict[str, float](), dict[str, float]()
    for step, block in zip(steps, blocks, strict=True):
        scope.add(block, (width - block.width) / 2, y)
        tops[step.name], bottoms[step.name] = y, y + block.height
        y += block.height + GAP
    end = y + DOT / 2
    scope.dots.append((middle, end))
    tops[END] = end - DOT / 2
    scope.height = end + DOT / 2
    if steps:
        scope.edges.append(GraphEdge(((middle, DOT), (middle, tops[steps[0].name]))))
    _add_edges(scope, steps, {each.name: block for each, block in zip(steps, blocks, strict=True)}, tops, bottoms)
    return scope


def _add_edges(
    scope: _Block,
    steps: Sequence[PlannedStep],
    blocks: dict[str, _Block],
    tops: dict[str, float],
    bottoms: dict[str, float],
) -> None:
    """Add the arrows between the steps; each that is not straight gets a lane."""
    middle, right, lanes = scope.width / 2, scope.width, 0
    names = [*(each.name for each in steps), END]
    for number, step in enumerate(steps):
        for place, target in enumerate(step.targets):
            if target.step == names[number + 1] and not target.is_failure and place == 0:
                ends = (middle, bottoms[step.name]), (middle, tops[target.step])
                scope.edges.append(GraphEdge(ends, _label(target)))
                continue
            lanes += 1
            x = right + lanes * LANE
            start = bottoms[step.name] - 12 - 8 * min(place, 2)
            inner = middle + blocks[step.name].width / 2
            target_block = blocks.get(target.step)
            at = middle + (target_block.width / 2 if target_block is not None else DOT / 2)
            end = tops[target.step] + (12 if target_block is not None else DOT / 2)
            points = (inner, start), (x, start), (x, end), (at, end)
            scope.edges.append(GraphEdge(points, _label(target), target.is_failure))
    scope.width = right + (lanes + 1) * LANE if lanes else right
    longest = max((len(each.label) for each in scope.edges if len(each.points) > 2), default=0)
    scope.width += longest * 6.5


def _label(target: PlannedTarget) -> str:
    if target.is_failure:
        return "any failure" if target.when == "*" else target.when
    return "" if target.when == "next" else target.when


def _step(step: PlannedStep, prefix: str | None) -> _Block:
    path = None if prefix is None else f"{prefix}{step.name}"
    if not step.inner:
        node = GraphNode(step.name, step.kind, path, 0, 0, BOX_WIDTH, BOX_HEIGHT)
        return _Block(BOX_WIDTH, BOX_HEIGHT, [node])
    return _frame(step, list(_inner(step, path)), path)


def _inner(step: PlannedStep, path: str | None) -> Iterator[tuple[str, _Block]]:
    for name, plan in step.inner.items():
        inside = f"{path}[{name}]/" if name else f"{path}/"
        yield name, _scope(plan.steps, None if path is None or step.kind == StepType.MAP else inside)


def _frame(step: PlannedStep, inner: Sequence[tuple[str, _Block]], path: str | None) -> _Block:
    """A frame around blocks that stand side by side, each below its name."""
    frame, x = _Block(), float(MARGIN)
    height = max(block.height for _, block in inner)
    title_height = 18 if any(name for name, _ in inner) else 0
    parts: list[GraphNode] = []
    for name, block in inner:
        if name:
            size = block.width + 8, height + title_height + 8
            parts.append(GraphNode(name, "branch", None, x - 4, HEADER - 4, *size, is_frame=True, title=name))
        x += block.width + MARGIN
    frame.width, frame.height = max(x, BOX_WIDTH), HEADER + title_height + height + MARGIN
    frame.nodes = [
        GraphNode(step.name, step.kind, path, 0, 0, frame.width, frame.height, is_frame=True),
        *parts,
    ]
    x = float(MARGIN)
    for _, block in inner:
        frame.add(block, x, HEADER + title_height)
        x += block.width + MARGIN
    return frame
