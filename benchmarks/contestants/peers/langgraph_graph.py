"""LangGraph's state graph with `durability="sync"`: one repeated node; its state is checkpointed before each visit."""

from __future__ import annotations

import asyncio
import operator
import time
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from benchmarks.child import answer, latency_figures, payload_text, start_clock, timed
from benchmarks.contestants.peers.langgraph import PACKAGES, invoke, saver
from benchmarks.task import Reading, Task


class State(TypedDict):
    """Remaining steps of the run, and the outputs of its steps."""

    left: int
    payload: int
    outputs: Annotated[list[str], operator.add]


async def step(state: State) -> dict[str, object]:
    payload = state["payload"]
    return {"left": state["left"] - 1, "outputs": [payload_text(state["left"], payload)] if payload else []}


def following(state: State) -> str:
    return "step" if state["left"] else END


def graph_of(opened: Any) -> Any:
    """A graph with one node, which is visited once per step."""
    builder = StateGraph(State)
    builder.add_node("step", step)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", following, ["step", END])
    return builder.compile(checkpointer=opened)


async def run(graph: Any, steps: int, payload: int, thread: str, *, is_durable: bool = True) -> None:
    given = {"left": steps, "payload": payload, "outputs": []}
    await invoke(graph, given, thread, is_durable=is_durable, recursion_limit=steps + 10)


class Count(TypedDict):
    """Number of items."""

    items: int


async def item(state: Count) -> dict[str, object]:
    return {}


def sent(state: Count) -> list[Send]:
    return [Send("item", {}) for _ in range(state["items"])]


def fan_out_graph(opened: Any) -> Any:
    """The graph of a map, with one `Send` to the same node per item."""
    builder = StateGraph(Count)
    builder.add_node("item", item)
    builder.add_conditional_edges(START, sent, ["item", END])
    builder.add_edge("item", END)
    return builder.compile(checkpointer=opened)


async def fan_out(task: Task) -> Reading:
    items, limit = task.size["items"], task.size["concurrency"]
    async with saver(task) as opened:
        graph = fan_out_graph(opened)
        await invoke(graph, {"items": 2}, "warm")
        return await timed(invoke(graph, {"items": items}, "one", max_concurrency=limit), items)


async def sequential(task: Task) -> Reading:
    steps, is_durable = task.size["steps"], task.backend != "none"
    async with saver(task) as opened:
        graph = graph_of(opened)
        await run(graph, 2, 0, "warm", is_durable=is_durable)
        work = run(graph, steps, task.size.get("payload", 0), "one", is_durable=is_durable)
        return await timed(work, steps)


async def many_runs(task: Task) -> Reading:
    runs, latencies = task.size["runs"], list[float]()
    async with saver(task) as opened:
        graph = graph_of(opened)
        await run(graph, 2, 0, "warm")
        began = start_clock()

        async def one(number: int) -> None:
            await run(graph, task.size["steps"], 0, f"run-{number}")
            latencies.append(time.perf_counter() - began)

        await asyncio.gather(*(one(number) for number in range(runs)))
        return Reading(time.perf_counter() - began, runs, latency_figures(latencies))


if __name__ == "__main__":
    answer({"sequential": sequential, "fan_out": fan_out, "many_runs": many_runs}, PACKAGES)
