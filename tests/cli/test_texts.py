"""Values as texts, texts as values, and trees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spine_async import END, Queue, RateLimit, Step, Workflow, WorkflowContext
from spine_async.cli.output import aligned
from spine_async.cli.problem import CommandError
from spine_async.cli.text import duration_text, parse_duration, parse_time, printable, shortened
from spine_async.cli.values import parse_entries, parse_params
from spine_async.cli.worker import parse_queue
from spine_async.views.plan_tree import plan_tree

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.25, "250 ms"),
        (1.239, "1.24 s"),
        (59.2, "59.20 s"),
        (125, "2 m 05 s"),
        (3600, "1 h 00 m"),
        (90_061, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5h", 5400), ("7 d", 604_800), ("2w", 1_209_600), ("0", 0)]
)
def test_durations_that_are_given(text: str, seconds: float) -> None:
    assert parse_duration(text, "--age") == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1", "1y", "1e9", "9" * 30 + "w"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(CommandError, match="--age is"):
        parse_duration(text, "--age")


def test_times() -> None:
    assert parse_time("2h", "--since", NOW) == NOW - timedelta(hours=2)
    assert parse_time("2026-01-30", "--since", NOW) == datetime(2026, 1, 30, tzinfo=UTC)
    assert parse_time("2026-01-30T10:00+02:00", "--since", NOW) == datetime(2026, 1, 30, 8, tzinfo=UTC)
    with pytest.raises(CommandError, match="too long ago"):
        parse_time("999999w", "--since", NOW)


def test_characters_that_control_a_terminal() -> None:
    assert printable("a\nb\x1b[31m\u202e\x00ö") == "a b\\x1b[31m\\u202e\\x00ö"
    assert shortened("x" * 10, 4) == "xxx…"


def test_columns() -> None:
    assert aligned([["a", "bcd", ""], ["long", "e", "f"]]) == ["a     bcd", "long  e    f"]


def test_params() -> None:
    assert parse_params(None, []) is None
    assert parse_params("{}", []) == {}
    assert parse_params('{"a": 1, "b": 2}', ["b=3", "c=[1]", "d=x=y", "e=2026-01"]) == {
        "a": 1,
        "b": 3,
        "c": [1],
        "d": "x=y",
        "e": "2026-01",
    }
    assert parse_entries(["n=NaN", "t=true", 's="1"']) == {"n": "NaN", "t": True, "s": "1"}


def test_queues() -> None:
    assert parse_queue("mail") == Queue("mail")
    assert parse_queue("mail:concurrency=20,per-process=5,per-key=1,rate=100/60") == Queue(
        "mail", concurrency=20, per_process=5, per_key=1, rate=RateLimit(100, per=60)
    )


def handler(context: WorkflowContext, config: dict[str, Any]) -> None:
    return None


def test_a_tree_with_branches_and_cleanup() -> None:
    inner = Workflow("inner", [Step.lambda_("a", handler), Step.lambda_("b", handler)])
    workflow = Workflow(
        "tree",
        [
            Step.parallel("both", {"left": handler, "right": inner}, catch={"*": "last"}),
            Step.workflow("child", inner, next_step=END),
            Step.lambda_("last", handler),
        ],
        cleanup=[Step.lambda_("tidy", handler)],
    )
    assert plan_tree(workflow.plan()) == [
        "tree (version 1)",
        "├─ both  parallel all  any other failure → last",
        "│  ├─ [left]",
        "│  │  └─ left  lambda handler",
        "│  └─ [right]",
        "│     ├─ a  lambda handler",
        "│     └─ b  lambda handler",
        "├─ child  workflow inner  → end",
        "│  ├─ a  lambda handler",
        "│  └─ b  lambda handler",
        "└─ last  lambda handler",
        "cleanup",
        "└─ tidy  lambda handler",
    ]
