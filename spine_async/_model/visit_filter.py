"""Which journal entries of a run a store reads, and where a page of them begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VisitFilter:
    """Selects journal entries of one run, in the order of their numbers.

    With neither `scopes` nor `inside` it selects the entries of all scopes. Hidden entries (`VisitRow.is_hidden`) are
    selected only by their scope.

    Attributes:
        scopes: Only the entries of these scopes: "" for the run itself, a map item such as `process_all[17]`, a branch,
            a child workflow such as `child`, or the path of a visit that has recorded calls.
        inside: Path of a visit; only the entries inside of it: those of the items of a map, of branches, or of a child
            workflow. Not together with `scopes`.
        after: Only the entries with a greater number, so that a page continues behind the last entry of another.
        limit: At most this many entries; fewer only if there are no more. None selects all.

    Raises:
        ValueError: Both `scopes` and `inside` are given.
    """

    scopes: Sequence[str] | None = None
    inside: str | None = None
    after: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.scopes is not None and self.inside is not None:
            raise ValueError("scopes and inside are both given; a filter selects by one of them")

    @property
    def is_own(self) -> bool:
        """Whether it selects the entries of the run's own steps."""
        return self.scopes is not None and tuple(self.scopes) == ("",)


OWN_VISITS = VisitFilter(scopes=("",))
"""Selects the entries of the run's own steps."""
