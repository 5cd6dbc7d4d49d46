"""Claims that other calls of a runner make while a claim of its worker is under way.

A runner may claim a run that it holds already. So a call, such as a stop, may claim a run that the worker has just
claimed in the store, before the worker has received the answer. Then the worker must not execute the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from spine_async._model.run_claim import Claim


class OwnClaims:
    """Notes the claims that are made while somebody wants to know them."""

    def __init__(self) -> None:
        self._notes: list[dict[str, Claim]] = []

    def add(self, claim: Claim) -> None:
        """Take note of a claim of this runner."""
        for each in self._notes:
            each[claim.run_id] = claim

    @contextmanager
    def noted(self) -> Iterator[Mapping[str, Claim]]:
        """The claims that are made inside the context, by run id."""
        notes = dict[str, Claim]()
        self._notes.append(notes)
        try:
            yield notes
        finally:
            self._notes[:] = [each for each in self._notes if each is not notes]


def is_superseded(claim: Claim, later: Mapping[str, Claim]) -> bool:
    """Whether the run of a claim was claimed again, or was deleted and created again."""
    other = later.get(claim.run_id)
    return other is not None and (other.key != claim.key or other.epoch > claim.epoch)
