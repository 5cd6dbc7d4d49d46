"""Ask the agent, and print its tokens while they arrive.

python chat.py --run-id demo "How many apples are there?"   # the same command again continues an interrupted run
python chat.py --follow demo                                # in another terminal: the same tokens
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator

import anyio
from flow import WORKFLOW
from model import speed

from spine_async import Event, WorkflowRunner


async def show(events: AsyncIterator[Event]) -> None:
    """Print the tokens of a run. A message that an interrupted process has begun is begun again."""
    message, attempt = "", (0, 0)
    async for event in events:
        if event.event_type != "token":
            continue
        begun = (event.metadata["execution"], event.metadata["attempt"])
        if event.path != message:
            print(end="\n" if message else "")
        elif begun != attempt:
            print("… interrupted")
        message, attempt = str(event.path), begun
        print(event.metadata["data"], end="", flush=True)
    print()


async def ask(question: str, run_id: str) -> None:
    params = {"messages": [{"role": "user", "text": question}]}
    async with WorkflowRunner(workflows=[WORKFLOW]) as runner:
        handle = await runner.start(WORKFLOW, params=params, run_id=run_id)
        await show(handle.events(follow=True))
        (await handle.result()).raise_for_status()


async def follow(run_id: str) -> None:
    async with WorkflowRunner(work=False) as runner:
        await show(runner.events(run_id, follow=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="An agent that streams its tokens and survives a kill.")
    parser.add_argument("question", nargs="?", default="How many apples and plums are there?")
    parser.add_argument("--run-id", default="demo", help="id of the run")
    parser.add_argument("--pause", type=float, help="seconds between two tokens")
    parser.add_argument("--follow", metavar="RUN_ID", help="print the tokens of a run that another process executes")
    arguments = parser.parse_args()
    if arguments.pause is not None:
        speed["pause"] = arguments.pause
    if arguments.follow:
        anyio.run(follow, arguments.follow)
    else:
        anyio.run(ask, arguments.question, arguments.run_id)


if __name__ == "__main__":
    main()
