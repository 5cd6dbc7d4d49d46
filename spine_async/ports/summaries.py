"""The capability of a store to summarize its runs without reading them."""

from __future__ import annotations

from typing import Protocol, TypeGuard

from spine_async._model.run_filter import RunFilter
from spine_async._model.status import RunStatus


class SummaryStore(Protocol):
    """Summarizes runs.

    Optional: for other stores the engine reads the pages of `RunStore.runs`, without the documents of the runs. A count
    then reads at most `limit` runs of each status, and the names of the workflows are found in all runs.
    """

    async def count_runs(self, chosen: RunFilter) -> dict[RunStatus, int]:
        """How many runs match the filter, by status. The counting of a status stops at `chosen.limit`.

        Statuses without such a run may be left out.
        """
        ...

    async def workflow_names(self) -> list[str]:
        """The names of the workflows that have a stored run, each once."""
        ...


_METHODS = ("count_runs", "workflow_names")


def summarizes_runs(store: object) -> TypeGuard[SummaryStore]:
    """Whether a store has this capability; see `keeps_due_runs`."""
    return all(hasattr(store, name) for name in _METHODS)
