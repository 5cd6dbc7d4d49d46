"""Reads the visits of a run; the cost of a page depends on its size, not on the number of visits before it.

Theory of operation of a page inside a step, such as a map: the path index finds the rows of a map, but not in the order
of their numbers, so each page would sort all of them. The primary key has this order. While a map is executed, its run
adds no other rows, so the rows of the map are adjacent in it. The first page begins at the smallest number in the map.
Each page reads a range of the primary key, and leaves out the few rows that belong to other steps.
"""

from __future__ import annotations

from collections.abc import Mapping

from spine_async._model.document import encode
from spine_async._model.naming import is_inside
from spine_async._model.visit_filter import VisitFilter
from spine_async._model.visit_row import VisitRow
from spine_async.storage.sql.database import SqlDatabase
from spine_async.storage.sql.schema import queries
from spine_async.storage.sql.schema.queries import MAX_SEQ
from spine_async.storage.sql.schema.rows import read_visit

_LAST = "\U0010ffff"  # no path begins with it: it is not printable


async def read_visits(database: SqlDatabase, run_id: str, chosen: VisitFilter) -> list[VisitRow]:
    """The visits that the filter selects, in order."""
    if chosen.inside is not None:
        page = _read_page_inside if chosen.limit is not None else _read_all_inside
        return await page(database, run_id, chosen.inside, chosen)
    bounds = {"run_id": run_id, "after": chosen.after, "most": _most(chosen)}
    if chosen.scopes is None or chosen.is_own:
        rows = await database.read(queries.VISITS if chosen.is_own else queries.VISIT_PAGE, bounds)
    else:
        ranges = encode([_scope_range(scope) for scope in chosen.scopes]).text
        rows = await database.read(queries.SCOPES_PAGE[database.dialect], {"ranges": ranges, **bounds})
    return [read_visit(run_id, row) for row in rows]


async def _read_all_inside(database: SqlDatabase, run_id: str, path: str, chosen: VisitFilter) -> list[VisitRow]:
    values = {"run_id": run_id, "after": chosen.after, **_path_range(path)}
    return [read_visit(run_id, row) for row in await database.read(queries.VISITS_BELOW, values)]


async def _read_page_inside(database: SqlDatabase, run_id: str, path: str, chosen: VisitFilter) -> list[VisitRow]:
    after, limit = chosen.after, _most(chosen)
    if after <= 0:
        ((first,),) = await database.read(queries.FIRST_BELOW, {"run_id": run_id, **_path_range(path)})
        if first is None:
            return []
        after = int(str(first)) - 1
    page: list[VisitRow] = []
    while len(page) < limit:
        rows = await database.read(queries.VISIT_PAGE, {"run_id": run_id, "after": after, "most": limit})
        visits = [read_visit(run_id, row) for row in rows]
        page += [visit for visit in visits if is_inside(visit.scope, path)]
        if len(visits) < limit:
            break
        after = visits[-1].seq
    return page[:limit]


def _most(chosen: VisitFilter) -> int:
    return MAX_SEQ if chosen.limit is None else chosen.limit


def _path_range(path: str) -> Mapping[str, str]:
    """Bounds of the paths inside the visit at `path`: those of items and branches, and those of a child workflow."""
    # A backslash is the next character after `[`, and `0` that after `/`. So the ranges contain exactly the paths that
    # begin with `path[` and `path/`.
    items = {"from_path": f"{path}[", "to_path": f"{path}\\"}
    return {**items, "from_child": f"{path}/", "to_child": f"{path}0"}


def _scope_range(scope: str) -> tuple[str, str, str]:
    """The scope with the bounds of the paths in it. The range serves the index; the scope decides.

    The paths of an item begin with `scope/`, and the path of the row that stores the item is `scope@item`. `A` is the
    next character after `@`.
    """
    return (scope, f"{scope}/", f"{scope}A") if scope else ("", "", _LAST)
