"""How large the randomised tests are, and what they tell of themselves."""

from __future__ import annotations

import os
import random

IS_FULL = os.environ.get("SPINE_CHAOS") == "full"
"""Set by the nox session `chaos`; otherwise the short forms run."""

SEED = int(os.environ.get("SPINE_CHAOS_SEED", "20260101"))

LINES: list[str] = []
"""What the tests told; shown at the end of the test session."""


def size(short: int, full: int) -> int:
    """How many of something a test does; `SPINE_CHAOS_SHARE=0.1` makes the full size smaller."""
    return int(full * float(os.environ.get("SPINE_CHAOS_SHARE", "1"))) or 1 if IS_FULL else short


def draws(*salt: object) -> random.Random:
    """A source of random numbers that is the same in every session of the same seed."""
    return random.Random(f"{SEED}/{salt}")


def tell(test: str, **figures: object) -> None:
    """Say how large a test was and what it hit."""
    line = f"{test}: seed={SEED} " + " ".join(f"{name}={value}" for name, value in figures.items())
    LINES.append(line)
    print(line)
