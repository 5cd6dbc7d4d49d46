"""A fork: a new run that begins with a copy of the rows of another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from spine_async._model.run_row import NewRun
from spine_async._model.visit_row import EventRow, VisitRow

COPIED_MARK = "@fork"
"""Prefix of the path of a copied row that stores changed params, because the new run stores such rows of its own."""


@dataclass(slots=True, kw_only=True)
class NewFork:
    """A run to create with a copy of the rows of another run.

    Attributes:
        run: The new run, which has no owner. Its params are those with which the other run began.
        source_id: Id of the other run.
        source_created_at: When the other run was created, so that a later run with the same id is not mistaken for it.
        until: The rows and events of the other run up to this number are copied, with their numbers.
        outputs: JSON texts of the outputs that replace copied ones, by the path of the visit.
        override: A row that follows the copied ones and stores changed params, or None.
        event: The event that follows the copied ones, or None. It has the same number as `override`.
    """

    run: NewRun
    source_id: str
    source_created_at: datetime
    until: int
    outputs: Mapping[str, str] = field(default_factory=dict)
    override: VisitRow | None = None
    event: EventRow | None = None

    @property
    def next_seq(self) -> int:
        """Number of the next event of the new run."""
        return self.until + (2 if self.override is not None or self.event is not None else 1)


class ForkOutcome(StrEnum):
    """The outcome of a fork.

    `forked`: the new run is stored. `taken`: its id belongs to another run. `not_found`: the source is not stored.
    """

    FORKED = "forked"
    TAKEN = "taken"
    NOT_FOUND = "not_found"


def copied_path(path: str) -> str:
    """The path that a copied row has in the new run."""
    return f"{COPIED_MARK}{path}" if path.startswith("@") else path
