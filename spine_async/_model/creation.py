"""What becomes of a new run as it is created."""

from __future__ import annotations

from spine_async._model.record import NewRun, StoredRun
from spine_async._model.status import RunStatus


def as_stored(new: NewRun) -> StoredRun:
    """The run as a store has it right after its creation."""
    return StoredRun(
        run_id=new.run_id,
        workflow_name=new.workflow_name,
        workflow_version=new.workflow_version,
        fingerprint=new.fingerprint,
        params=new.params,
        params_hash=new.params_hash,
        partition=new.partition,
        initial_outputs=new.initial_outputs,
        initial_quality=new.initial_quality,
        start_from=new.start_from,
        total_steps=new.total_steps,
        status=RunStatus.RUNNING,
        epoch=1,
        owner=new.owner,
        next_seq=2 if new.emits else 1,
        error_step=None,
        error=None,
        error_category=None,
        stop_reason=None,
        created_at=new.created_at,
        started_at=new.created_at,
        updated_at=new.created_at,
        completed_at=None,
        metadata=new.metadata,
    )
