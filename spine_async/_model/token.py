"""Marks by which what was written is known again."""

from __future__ import annotations

import os


def new_mark() -> str:
    """A random text by which a creation, a claim or a commit is found again when its outcome was not heard.

    It has to differ from the others of the same run only, so 48 bits are plenty; a row of every step holds it.
    """
    return os.urandom(6).hex()
