"""The capability of a store to find the last row of a kind without reading those before it."""

from __future__ import annotations

from typing import Protocol, TypeGuard

from spine_async._model.visit_row import EventRow, VisitRow


class LastRowStore(Protocol):
    """Finds single rows of a run at a cost that does not depend on how many rows it has.

    Optional: for other stores the engine reads the pages of `RunStore.visits` or `RunStore.events` from the first one.
    """

    async def last_visit(self, run_id: str, step: str) -> VisitRow | None:
        """The last completed or skipped visit of a step outside of map items; None if there is none.

        Args:
            run_id: The run.
            step: Name of the step; or the path of a single visit, such as `review#2` or `process_all[17]/resize`.
        """
        ...

    async def last_event(self, run_id: str, event_type: str, path: str) -> EventRow | None:
        """The last event of this type and path that is stored as an event; None if there is none.

        The engine asks only for events of visits that have no row, so events that are derived from a visit need not be
        found.
        """
        ...


_METHODS = ("last_visit", "last_event")


def finds_last_rows(store: object) -> TypeGuard[LastRowStore]:
    """Whether a store has this capability; see `keeps_due_runs`."""
    return all(hasattr(store, name) for name in _METHODS)
