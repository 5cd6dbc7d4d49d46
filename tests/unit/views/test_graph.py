"""Pictures of plans: where boxes and arrows are, and what the SVG contains."""

from __future__ import annotations

from datetime import timedelta
from itertools import combinations
from typing import Any
from xml.etree import ElementTree as ET

from spine_async import END, ItemState, Step, Workflow, WorkflowContext
from spine_async.views.graph import BOX_HEIGHT, BOX_WIDTH, Graph, GraphNode, graph_of
from spine_async.views.svg import CELLS_PER_ROW, bar_svg, graph_svg, strip_svg


async def work(context: WorkflowContext, config: dict[str, Any]) -> None:
    return None


def is_large(context: WorkflowContext) -> bool:
    return True


inner = Workflow("inner", [Step.lambda_("first", work), Step.lambda_("second", work)])
everything = Workflow(
    "everything",
    [
        Step.lambda_("load", work, catch={"TIMEOUT": "late", "*": "undo"}),
        Step.choice("large", is_large, then_step="ask", else_step="late"),
        Step.wait_for_signal("ask", timeout=timedelta(days=1), on_timeout="load"),
        Step.parallel("both", {"left": work, "right": inner}),
        Step.map("each", items=range(3), iterator=inner),
        Step.workflow("child", inner, next_step=END),
        Step.lambda_("late", work),
        Step.lambda_("undo", work),
    ],
    cleanup=[Step.lambda_("tidy", work)],
)


def picture(workflow: Workflow = everything) -> Graph:
    return graph_of(workflow.plan())


def by_path(graph: Graph) -> dict[str, GraphNode]:
    return {node.path: node for node in graph.nodes if node.path is not None}


def overlap(one: GraphNode, other: GraphNode) -> bool:
    apart_x = one.x + one.width <= other.x or other.x + other.width <= one.x
    apart_y = one.y + one.height <= other.y or other.y + other.height <= one.y
    return not (apart_x or apart_y)


def test_boxes_do_not_overlap_and_lie_inside_of_the_picture() -> None:
    graph = picture()
    boxes = [node for node in graph.nodes if not node.is_frame]
    assert len(boxes) == 5 + 1 + 2 + 2 + 2 + 1
    assert [(a.name, b.name) for a, b in combinations(boxes, 2) if overlap(a, b)] == []
    for node in graph.nodes:
        assert node.x >= 0
        assert node.y >= 0
        assert node.x + node.width <= graph.width
        assert node.y + node.height <= graph.height
    for edge in graph.edges:
        assert all(0 <= x <= graph.width and 0 <= y <= graph.height for x, y in edge.points)


def test_steps_stand_below_each_other_in_their_order() -> None:
    nodes = by_path(picture())
    order = ["load", "large", "ask", "both", "each", "child", "late", "undo"]
    tops = [nodes[name].y for name in order]
    assert tops == sorted(tops)
    assert (nodes["load"].width, nodes["load"].height) == (BOX_WIDTH, BOX_HEIGHT)


def test_paths_name_the_visits_except_inside_of_maps() -> None:
    paths = set(by_path(picture()))
    assert {"both[left]/left", "both[right]/first", "child/second", "each", "both"} <= paths
    assert not [path for path in paths if path.startswith(("each[", "each/"))]


def test_branches_stand_side_by_side() -> None:
    nodes = by_path(picture())
    left, right = nodes["both[left]/left"], nodes["both[right]/first"]
    assert left.x + left.width < right.x
    assert nodes["both"].is_frame


def test_arrows_have_the_labels_of_their_targets() -> None:
    labels = {(edge.label, edge.is_failure) for edge in picture().edges if edge.label}
    assert labels == {("then", False), ("else", False), ("timeout", False), ("TIMEOUT", True), ("any failure", True)}


def test_a_jump_runs_in_a_lane_of_its_own_beside_the_boxes() -> None:
    graph = picture()
    jumps = [edge for edge in graph.edges if len(edge.points) == 4]
    lanes = [edge.points[1][0] for edge in jumps]
    assert len(set(lanes)) == len(lanes)
    right = max(node.x + node.width for node in graph.nodes if node.path is not None)
    assert min(lanes) > right


def test_the_svg_is_well_formed_and_has_states_and_links() -> None:
    states = {"load": "completed", "each": "running"}
    text = graph_svg(
        picture(), states, lambda path: f"/map?path={path}&a=1" if path == "each" else None, "steps of <x>"
    )
    root = ET.fromstring(text)
    classes = [each.get("class") for each in root.iter("{http://www.w3.org/2000/svg}g")]
    assert "box kind-lambda state-completed" in classes
    assert "frame kind-map state-running" in classes
    assert [each.get("href") for each in root.iter("{http://www.w3.org/2000/svg}a")] == ["/map?path=each&a=1"]
    assert root.get("aria-label") == "steps of <x>"


def test_long_names_are_cut_and_titles_are_whole() -> None:
    name = "a_step_with_a_name_that_is_longer_than_its_box"
    root = ET.fromstring(graph_svg(picture(Workflow("w", [Step.lambda_(name, work)])), {}, lambda path: None, "w"))
    assert root.findtext(".//{http://www.w3.org/2000/svg}title") == name
    texts = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert name not in texts
    assert any(text.endswith("…") for text in texts)


def test_a_bar_stays_on_its_axis() -> None:
    for start, duration, total in ((0, 0, 0), (5, 1, 10), (9.999, 100, 10), (20, 1, 10), (0, 10, 10)):
        bar = list(ET.fromstring(bar_svg(start, duration, total, "running")))[1]
        x, width = float(str(bar.get("x"))), float(str(bar.get("width")))
        assert x >= 0
        assert width > 0
        assert x + width <= 1000.05


def test_a_strip_has_a_cell_for_each_item_and_links_for_failed_ones() -> None:
    states = [ItemState(index, has_ended=True, duration=index / 10, attempts=1) for index in range(10)]
    states[4] = ItemState(4, has_ended=True, duration=0, attempts=0, error="no", error_category="INTERNAL")
    states[6] = ItemState(6, has_ended=False, duration=0.1, attempts=1)
    root = ET.fromstring(strip_svg(states, 0, CELLS_PER_ROW + 20, lambda index: f"/item?i={index}&x=1"))
    cells = {
        str(each.get("class")): str(each.get("d")).count("M") for each in root.iter("{http://www.w3.org/2000/svg}path")
    }
    assert cells.pop("cell-none") == CELLS_PER_ROW + 10
    assert cells.pop("cell-running") == 1
    assert sum(cells.values()) == 8
    assert set(cells) == {f"cell-heat-{number}" for number in range(1, 6)}
    assert [each.get("href") for each in root.iter("{http://www.w3.org/2000/svg}a")] == ["/item?i=4&x=1"]


def test_a_strip_without_items_is_empty() -> None:
    assert list(ET.fromstring(strip_svg([], 0, 0, str))) == []
