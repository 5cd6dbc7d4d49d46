"""The capability of a store to read visits in part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard

from spine_async._model.visit_record import ItemState
from spine_async._model.visit_row import PastPage, VisitRow


class OutlineStore(Protocol):
    """Reads of visits only what the caller needs.

    Optional: for other stores the engine reads whole visits, and the events of a map.
    """

    async def past_visits(self, run_id: str, after: int, limit: int) -> PastPage:
        """At most `limit` entries of the run's own steps with a number above `after`, as a resume reads them."""
        ...

    async def visit_outlines(self, run_id: str, after: int, limit: int) -> list[VisitRow]:
        """A page of the same entries as `RunStore.visits` returns them; the fields with documents are None.

        The cost does not depend on the size of values.
        """
        ...

    async def item_states(self, run_id: str, path: str) -> Sequence[ItemState]:
        """The items of the map at `path` of which a step has ended, or that have failed; ordered by index."""
        ...


_METHODS = ("past_visits", "visit_outlines", "item_states")


def reads_outlines(store: object) -> TypeGuard[OutlineStore]:
    """Whether a store has this capability; see `keeps_due_runs`."""
    return all(hasattr(store, name) for name in _METHODS)
