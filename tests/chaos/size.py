"""Sizes and random seeds of the randomised tests, and the lines that they report."""

from __future__ import annotations

import os
import random

IS_FULL = os.environ.get("SPINE_CHAOS") == "full"
"""Set by the nox session `chaos`; otherwise the short forms run."""

SEED = int(os.environ.get("SPINE_CHAOS_SEED", "20260101"))

LINES: list[str] = []
"""Reports of the tests; printed at the end of the test session."""


def size(short: int, full: int) -> int:
    """The number of repetitions of a test; `SPINE_CHAOS_SHARE=0.1` reduces the full size to a tenth."""
    return int(full * float(os.environ.get("SPINE_CHAOS_SHARE", "1"))) or 1 if IS_FULL else short


def draws(*salt: object) -> random.Random:
    """A random generator that gives the same numbers in each session with the same seed."""
    return random.Random(f"{SEED}/{salt}")


def report(test: str, **figures: object) -> None:
    """Report the size and the figures of a test."""
    line = f"{test}: seed={SEED} " + " ".join(f"{name}={value}" for name, value in figures.items())
    LINES.append(line)
    print(line)
