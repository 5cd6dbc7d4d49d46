"""Digests by which an item of a map is compared with the item that is stored at its index.

A digest is a 64-bit hash of the item's strict JSON document; the order of keys does not matter. Digests are never
stored, because Python seeds its hash in each process.
"""

from __future__ import annotations

import json

from pydantic_core import from_json, to_json

from spine_async._model.document import split_values
from spine_async._model.large_text import canonical_pieces


def item_digest(text: str) -> int:
    """The digest of an item with this JSON text; never 0."""
    return hash(json.dumps(from_json(text), sort_keys=True) if "{" in text else text) or 1


def large_digest(text: str) -> int:
    """The digest of an item with a long text; for a worker thread, because it takes long, but in short calls."""
    return hash("".join(canonical_pieces(text)) if "{" in text else text) or 1


def stored_digest(params: str) -> int:
    """The digest of the item in the stored params of its scope: JSON object text whose first member is the item."""
    item = next(iter(split_values(params).values()))
    return item_digest(to_json(item).decode())
