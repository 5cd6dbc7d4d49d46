"""Pictures of a run as SVG text: its graph, the bars of its timeline, the strip of a map.

All texts of users are escaped. The pictures have classes instead of colours and no inline styles, so that a style
sheet decides about them and a strict Content-Security-Policy permits them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from spine_async._model.visit_record import ItemState
from spine_async.views.graph import DOT, Graph, GraphEdge, GraphNode

CELL, CELLS_PER_ROW = 14, 80
_SHOWN_CHARACTERS = 24
_BAR = 1000
_HEAT = 5
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="arrow-head" d="M0 0 8 4 0 8z"/></marker></defs>'
)


def graph_svg(graph: Graph, states: Mapping[str, str], link: Callable[[str], str | None], title: str) -> str:
    """The graph of a workflow.

    Args:
        graph: The graph.
        states: The state of a step by its path, such as `running`, which becomes a class.
        link: The address for a path, or None.
        title: What the picture shows, for screen readers.
    """
    parts = [
        _opening("graph", graph.width, graph.height, title),
        _ARROW,
        *(_node(each, states, link) for each in graph.nodes if each.is_frame),
        *(_edge(each) for each in graph.edges),
        *(f'<circle class="dot" cx="{x:g}" cy="{y:g}" r="{DOT / 2:g}"/>' for x, y in graph.dots),
        *(_node(each, states, link) for each in graph.nodes if not each.is_frame),
        "</svg>",
    ]
    return "".join(parts)


def _opening(name: str, width: float, height: float, title: str) -> str:
    """The beginning of a picture; `title` describes it to screen readers."""
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f'<svg class="{name}" {size} role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">'


def _node(node: GraphNode, states: Mapping[str, str], link: Callable[[str], str | None]) -> str:
    state = states.get(node.path, "") if node.path is not None else ""
    classes = f"{'frame' if node.is_frame else 'box'} kind-{escape(node.kind)} state-{escape(state) or 'none'}"
    top = 20 if not node.is_frame else 16
    label = node.title or node.name
    lines = f'<text class="name" x="12" y="{top}">{escape(_short(label))}</text>'
    if not node.title:
        details = node.kind if not state else f"{node.kind} · {state}"
        x, y, anchor = (12, top + 15, "start") if not node.is_frame else (node.width - 12, top, "end")
        lines += f'<text class="kind" x="{x:g}" y="{y}" text-anchor="{anchor}">{escape(details)}</text>'
    box = f'<rect width="{node.width:g}" height="{node.height:g}" rx="6"/>'
    place = f"translate({node.x:g} {node.y:g})"
    group = f'<g class="{classes}" transform="{place}"><title>{escape(label)}</title>{box}{lines}</g>'
    address = link(node.path) if node.path is not None else None
    return group if address is None else f'<a href="{escape(address)}">{group}</a>'


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _edge(edge: GraphEdge) -> str:
    (x, y), *rest = edge.points
    line = f"M{x:g} {y:g}" + "".join(f"L{px:g} {py:g}" for px, py in rest)
    classes = "edge failure" if edge.is_failure else "edge"
    path = f'<path class="{classes}" d="{line}" marker-end="url(#arrow)"/>'
    if not edge.label:
        return path
    if rest[1:]:
        at_x, at_y = rest[0][0] + 4, rest[0][1] + (12 if rest[1][1] > y else -4)
    else:
        at_x, at_y = x + 6, (y + rest[0][1]) / 2 + 3
    return f'{path}<text class="when" x="{at_x:g}" y="{at_y:g}">{escape(_short(edge.label))}</text>'


def bar_svg(start: float, duration: float, total: float, state: str) -> str:
    """The bar of a visit on the axis of its run.

    Args:
        start: Seconds from the start of the run to that of the visit.
        duration: Seconds.
        total: Seconds that the whole axis stands for.
        state: State of the visit, which becomes a class.
    """
    length = max(total, 1e-9)
    x = min(start / length, 1.0) * _BAR
    width = min(max(duration / length * _BAR, 4.0), _BAR)
    return (
        f'<svg class="bar" viewBox="0 0 {_BAR} 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="axis" width="{_BAR}" height="10"/>'
        f'<rect class="state-{escape(state)}" x="{min(x, _BAR - width):.1f}" width="{width:.1f}" height="10"/></svg>'
    )


def strip_svg(states: Sequence[ItemState], first: int, count: int, link: Callable[[int], str]) -> str:
    """The items of a map as cells, in rows of 80: the slower an item was, the darker its cell.

    Args:
        states: The items that have begun, by index.
        first: Index of the first cell.
        count: Number of cells.
        link: The address of an item; only failed items are links, so that thousands of cells stay small.
    """
    limits = _limits(each.duration for each in states if each.has_ended and not each.has_failed)
    by_index = {each.index: each for each in states}
    cells: dict[str, list[int]] = {}
    for place in range(count):
        cells.setdefault(_cell_class(by_index.get(first + place), limits), []).append(place)
    failed = cells.pop("failed", [])
    rows = -(-count // CELLS_PER_ROW)
    label = f"items {first} to {first + count - 1}" if count else "no items"
    return "".join(
        [
            _opening("strip", CELLS_PER_ROW * CELL, max(rows, 1) * CELL, label),
            *(f'<path class="cell-{name}" d="{"".join(map(_cell, places))}"/>' for name, places in cells.items()),
            *(_failed_cell(place, first + place, link) for place in failed),
            "</svg>",
        ]
    )


def _limits(durations: Iterable[float]) -> Sequence[float]:
    """The durations that divide the items into five groups of the same size."""
    ordered = sorted(durations)
    return [ordered[len(ordered) * number // _HEAT] for number in range(1, _HEAT)] if ordered else []


def _cell_class(state: ItemState | None, limits: Sequence[float]) -> str:
    if state is None:
        return "none"
    if state.has_failed:
        return "failed"
    if not state.has_ended:
        return "running"
    return f"heat-{sum(state.duration > each for each in limits) + 1}"


def _cell(place: int) -> str:
    x, y = _corner(place)
    side = CELL - 2
    return f"M{x} {y}h{side}v{side}h-{side}z"


def _failed_cell(place: int, index: int, link: Callable[[int], str]) -> str:
    x, y = _corner(place)
    side = CELL - 2
    return (
        f'<a href="{escape(link(index))}"><title>item {index} failed</title>'
        f'<rect class="cell-failed" x="{x}" y="{y}" width="{side}" height="{side}"/></a>'
    )


def _corner(place: int) -> tuple[int, int]:
    return place % CELLS_PER_ROW * CELL, place // CELLS_PER_ROW * CELL
