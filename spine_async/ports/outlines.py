"""The capability of a store to read visits without their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard

from spine_async._model.record import VisitRow
from spine_async._model.visit_record import ItemState


class OutlineStore(Protocol):
    """Reads what a page about a run shows at a cost that does not depend on the size of values.

    Optional: for other stores the engine reads whole visits, and the events of a map.
    """

    async def visit_outlines(self, run_id: str, after: int, limit: int) -> list[VisitRow]:
        """As `RunStore.visits` for the run's own steps; the fields with documents are None."""
        ...

    async def item_states(self, run_id: str, path: str) -> Sequence[ItemState]:
        """The items of the map at `path` of which a step has ended, or that have failed; ordered by index."""
        ...


_METHODS = ("visit_outlines", "item_states")


def reads_outlines(store: object) -> TypeGuard[OutlineStore]:
    """Whether a store has this capability."""
    return all(hasattr(store, name) for name in _METHODS)
