"""Reads pages of visits inside a step, such as a map; the cost depends on the page's size, not on the size of the map.

Theory of operation: the path index finds the rows of a map, but not in the order of their numbers, so each page would
sort all of them. The primary key has this order. While a map is executed, its run adds no other rows, so the rows of
the map are adjacent in it. The first page begins at the smallest number in the map. Each page reads a range of the
primary key, and leaves out the few rows that belong to other steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spine_async._model.document import encode
from spine_async._model.naming import is_inside
from spine_async._model.record import VisitRow
from spine_async.storage.sql.database import SqlDatabase
from spine_async.storage.sql.schema import queries
from spine_async.storage.sql.schema.rows import read_visit

_LAST = "\U0010ffff"  # no path begins with it: it is not printable


def path_range(below: str) -> Mapping[str, str]:
    """Bounds of the paths inside the visit `below`: those of items and branches, and those of a child workflow."""
    # A backslash is the next character after `[`, and `0` that after `/`. So the ranges contain exactly the paths that
    # begin with `below[` and `below/`.
    items = {"from_path": f"{below}[", "to_path": f"{below}\\"}
    return {**items, "from_child": f"{below}/", "to_child": f"{below}0"}


async def read_visit_page(database: SqlDatabase, run_id: str, below: str, after: int, limit: int) -> list[VisitRow]:
    """At most `limit` visits inside the visit `below`, with numbers above `after`, in order."""
    if after <= 0:
        ((first,),) = await database.read(queries.FIRST_BELOW, {"run_id": run_id, **path_range(below)})
        if first is None:
            return []
        after = int(str(first)) - 1
    page: list[VisitRow] = []
    while len(page) < limit:
        rows = await database.read(queries.VISIT_PAGE, {"run_id": run_id, "after": after, "most": limit})
        visits = [read_visit(run_id, row) for row in rows]
        page += [visit for visit in visits if is_inside(visit.scope, below)]
        if len(visits) < limit:
            break
        after = visits[-1].seq
    return page[:limit]


async def read_scopes(
    database: SqlDatabase, run_id: str, scopes: Iterable[str], values: Mapping[str, object]
) -> list[VisitRow]:
    """A page of the visits in these scopes, in order; `values` are the bounds of the page."""
    ranges = encode([_scope_range(scope) for scope in scopes]).text
    query = queries.SCOPES_PAGE[database.dialect]
    rows = await database.read(query, {"run_id": run_id, "ranges": ranges, **values})
    return [read_visit(run_id, row) for row in rows]


def _scope_range(scope: str) -> tuple[str, str, str]:
    """The scope with the bounds of the paths in it. The range serves the index; the scope decides.

    The paths of an item begin with `scope/`, and the path of the row that stores the item is `scope@item`. `A` is the
    next character after `@`.
    """
    return (scope, f"{scope}/", f"{scope}A") if scope else ("", "", _LAST)
