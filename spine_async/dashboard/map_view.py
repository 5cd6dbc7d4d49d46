"""What a page shows of the items of a map. It is computed on a thread, because a map may have a million items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nlargest

from markupsafe import Markup

from spine_async._model.visit_record import ItemState, MapItems
from spine_async.views.svg import strip_svg

ITEMS = 2000
"""Cells of one page."""

_FAILED = 50
_SLOWEST = 5
_NEIGHBOURS = 5


@dataclass(frozen=True, slots=True)
class MapView:
    """The items of a map, and the strip of one page of them.

    Attributes:
        total: Number of items; with `is_total_known` False there may be more.
        failed: The first failed items.
        first: Index of the first cell of the page.
        last: Index of the last one.
        pages: Indexes at which pages begin: the first, the last, and those around this one.
        asked: The item that the visitor has asked for; None if it has not begun.
    """

    total: int
    is_total_known: bool
    completed: int
    failed_count: int
    failed: Sequence[ItemState]
    slowest: Sequence[ItemState]
    strip: Markup
    first: int
    last: int
    pages: Sequence[int]
    asked: ItemState | None

    @property
    def unfinished(self) -> int:
        """Number of items that have neither completed nor failed."""
        return self.total - self.completed - self.failed_count


def map_view(found: MapItems, first: int, index: int | None, link: Callable[[int], str]) -> MapView:
    """What a page shows of the items.

    Args:
        found: The items.
        first: Index of the first cell; that of the page which contains the item that was asked for, if any.
        index: The item that was asked for, or None.
        link: The address of an item.
    """
    states = found.states
    if index is not None:
        first = index // ITEMS * ITEMS
    total = found.total if found.total is not None else (states[-1].index + 1 if states else 0)
    count = max(min(ITEMS, total - first), 0)
    failed = [each for each in states if each.has_failed]
    shown = [each for each in states if first <= each.index < first + count]
    return MapView(
        total=total,
        is_total_known=found.total is not None or not states,
        completed=sum(each.has_ended for each in states) - len(failed),
        failed_count=len(failed),
        failed=failed[:_FAILED],
        slowest=nlargest(_SLOWEST, states, key=lambda each: each.duration),
        strip=Markup(strip_svg(shown, first, count, link)),  # noqa: S704 - `svg` escapes
        first=first,
        last=max(first + count - 1, 0),
        pages=_pages(total, first),
        asked=next((each for each in states if each.index == index), None) if index is not None else None,
    )


def _pages(total: int, first: int) -> list[int]:
    number, last = first // ITEMS, max(total - 1, 0) // ITEMS
    near = {0, last, *range(number - _NEIGHBOURS, number + _NEIGHBOURS + 1)}
    return [each * ITEMS for each in sorted(near) if 0 <= each <= last]
