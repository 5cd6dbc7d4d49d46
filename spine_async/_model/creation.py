"""What becomes of a new run as it is created."""

from __future__ import annotations

from spine_async._model.record import NewRun, StoredRun
from spine_async._model.status import RunStatus


def as_stored(new: NewRun) -> StoredRun:
    """The run as a store has it right after its creation."""
    return StoredRun(  # by position, which takes a third of the time
        new.run_id,
        new.workflow_name,
        new.workflow_version,
        new.fingerprint,
        new.params,
        new.params_hash,
        new.partition,
        new.initial_outputs,
        new.initial_quality,
        new.start_from,
        new.total_steps,
        RunStatus.RUNNING,
        1,  # epoch
        new.owner,
        2 if new.emits else 1,  # next_seq
        None,  # error_step
        None,  # error
        None,  # error_category
        None,  # stop_reason
        new.created_at,
        new.created_at,  # started_at
        new.created_at,  # updated_at
        None,  # completed_at
        new.metadata,
    )
