"""Creates the progress of a step that executes other workflows, by the kind of the step."""

from __future__ import annotations

from functools import partial

from spine_async._engine.state.branch_progress import BranchProgress
from spine_async._engine.state.map_progress import MapProgress
from spine_async._engine.state.nested_progress import AnyProgress
from spine_async._model.map_step import MapStep
from spine_async._model.step import Step


def new_progress(run_id: str, path: str, step: Step, *, keeps_digests: bool = True) -> AnyProgress:
    """The progress of a visit of which nothing is stored.

    Args:
        run_id: The run.
        path: Path of the visit.
        step: The step; it nests steps.
        keeps_digests: For a map, whether its items may have to be compared later.
    """
    open_inner = partial(new_progress, run_id)
    if isinstance(step, MapStep):
        return MapProgress(run_id, path, step, open_inner, keeps_digests=keeps_digests)
    return BranchProgress(run_id, path, step, open_inner)
