"""The capability of a store to copy the rows of a run to a new run."""

from __future__ import annotations

from typing import Protocol, TypeGuard

from spine_async._model.fork import ForkOutcome, NewFork


class ForkStore(Protocol):
    """Forks runs."""

    async def fork(self, new: NewFork) -> ForkOutcome:
        """Store a new run with a copy of the rows of another run, in one transaction.

        * Visits and events up to `until` are copied with their numbers; no row of the other run is changed.
        * A row whose path begins with `@` gets the path of `copied_path`.
        * `outputs` replace copied outputs, and their sizes.
        * `override` and `event` get the number `until + 1`. The next number of the new run is `next_seq`.
        * The new run has no owner, was never claimed, and is due as `run.due` says. Its `forked_from` is `source_id`.

        The call may be repeated after a lost answer.

        Raises:
            StoreUnavailableError: The store cannot be reached.
        """
        ...


def forks_runs(store: object) -> TypeGuard[ForkStore]:
    """Whether a store has this capability."""
    return hasattr(store, "fork")
