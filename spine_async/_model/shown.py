"""The values of users in messages of errors."""

from __future__ import annotations

_MOST = 80


def shown(value: object, most: int = _MOST) -> str:
    """The `repr` of a value, cut to `most` characters; or its type, if its `repr` raises.

    The `repr` of a class of the user's own may raise anything, and that of an integer with thousands of digits raises
    `ValueError`.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - code of the user
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= most else text[:most]
