"""Stands for a language model and its tool: the same question always gets the same answer, token by token."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import anyio

_STOCK = {"apples": 12, "plums": 40, "flour": 7}
speed = {"pause": 0.2}  # seconds between two tokens


class ToolCall(NamedTuple):
    """What the model wants to know before it continues."""

    tool: str
    argument: str


async def reply(messages: Sequence[dict[str, Any]]) -> AsyncIterator[str | ToolCall]:
    """The tokens of the next message, and a tool call at its end if there is one.

    Args:
        messages: The conversation, each with `role` and `text`; the answer of a tool has the role `tool`.
    """
    question = str(messages[0]["text"])
    wanted = [thing for thing in _STOCK if thing in question]
    answers = [str(message["text"]) for message in messages if message["role"] == "tool"]
    text, call = f"There are {' and '.join(answers)} in the store.", None
    if len(answers) < len(wanted):
        text, call = f"Let me count the {wanted[len(answers)]}.", ToolCall("count", wanted[len(answers)])
    elif not wanted:
        text = "I only know what is in the store: apples, plums and flour."
    for token in re.findall(r"\S+\s*", text):
        await anyio.sleep(speed["pause"])
        yield token
    if call is not None:
        yield call


async def count(thing: str) -> str:
    """The tool: how many there are."""
    return f"{_STOCK[thing]} {thing}"
