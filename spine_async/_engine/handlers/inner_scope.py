"""Creates the scope of an item, a branch or a child workflow: a new one, or one that continues after stored rows."""

from __future__ import annotations

from spine_async._engine.run.transition import replay
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.nested_progress import StoredScope
from spine_async._engine.state.position import Position
from spine_async._engine.state.scope import Scope, Visit
from spine_async._model.context import WorkflowContext
from spine_async._model.step import Definition


def new_scope(  # noqa: PLR0917 - each item of a map passes here, and keywords take time
    visit: Visit,
    workflow: Definition,
    path: str,
    context: WorkflowContext,
    params: str | None,
    index: int | None = None,
) -> Scope:
    """A scope of which nothing is stored.

    Args:
        visit: The visit of the step that executes it.
        workflow: Its steps.
        path: Its path.
        context: The context before its first step.
        params: JSON object text of the params that its first row stores, or None.
        index: For an item, its index.
    """
    waits: dict[str, str | None] = {}
    # Positional, because keywords take about 1 % of the time of an item.
    return Scope(visit.run, workflow, path, Cursor(workflow), context, waits, None, index, params, visit)


def resumed_scope(
    visit: Visit,
    workflow: Definition,
    path: str,
    context: WorkflowContext,
    stored: StoredScope,
    *,
    params: str | None,
    index: int | None = None,
) -> Scope:
    """A scope that has stored rows.

    Args:
        visit: The visit of the step that executes it.
        workflow: Its steps.
        path: Its path.
        context: The context before its first step.
        stored: Its stored rows.
        params: As in `new_scope`; not stored again if a row stores them already.
        index: For an item, its index.
    """
    position = Position(Cursor(workflow), context)
    replay(position, visit.run.run_id, stored.rows)
    return Scope(
        visit.run,
        workflow,
        path,
        position.cursor,
        position.context,
        position.waits,
        position.last_output,
        item_index=index,
        retries=position.retries,
        reported_path=position.reported_path,
        has_calls=position.has_calls,
        item_params=None if stored.has_params else params,
        parent=visit,
        nested=stored.inner,
    )


def stored_params(stored: StoredScope | None) -> str | None:
    """JSON object text of the params that a row of the scope stores, or None."""
    rows = stored.rows if stored is not None else ()
    return next((row.item_params for row in rows if row.item_params is not None), None)
