"""The runner's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf

from spine_async._model.durability import Durability
from spine_async._model.policy import RetryPolicy

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class WorkflowRunnerConfig(BaseModel):
    """Settings of a `WorkflowRunner`. Durations are seconds; None means no limit.

    Attributes:
        checkpoint_enabled: Whether anything is stored at all.
        checkpoint_every_step: Commit after every step; False commits only after steps with `checkpoint=True` and at the
            end of a run, so a crash repeats the steps since.
        checkpoint_storage: `database`; `file` and `redis` are not available yet.
        database_url: SQLAlchemy URL of the database; None means `SPINE_DATABASE_URL`, else `.spine/runs.db`.
        checkpoint_dir: Folder of the file store.
        redis_url: URL of the Redis store.
        default_step_timeout: For each attempt of a lambda or pipeline step that has no timeout of its own.
        workflow_timeout: For a whole `execute` or `resume`; beyond it the run fails with category TIMEOUT.
        default_retry_policy: Policy of steps with `on_error=RETRY` and none of their own.
        emit_events: Whether events are stored.
        trace_enabled: Whether spans are made.
        max_concurrent_steps: Lambdas and pipelines at work at once in the whole runner.
        max_step_visits: Visits of one step in one run, beyond which the run fails instead of looping forever.
        dry_run: Run without writing anything.
        auto_migrate: Whether an older or missing schema is brought up to date when the database is first used.
        durability: What an acknowledged step outlasts on SQLite: `full` the machine losing power, `process` only the
            process being killed, for commits that do not wait for the disk. PostgreSQL goes by the server's own
            `synchronous_commit`.
        lease_ttl: For how long a run stays its owner's without being renewed; renewed every third of it.
        store_timeout: How long one call of the database may take, retries included, before it raises
            `StoreUnavailableError`; None means two thirds of `lease_ttl`, but at least 5 seconds. A connection that
            does not answer for half of that time is replaced. On SQLite it limits the wait for the locks of other
            processes. A store that is passed as `store=` has a limit of its own.
        drain_timeout: How long running steps may go on when the runner is left.
        cancel_grace: How long a step may take to end once it is cancelled, before it is reported and left behind.
        max_claims: Take-overs of a run without progress, beyond which it is failed as a poison run.
        recover_interval: How often a runner with `recover=True` looks for runs whose owner is gone.
        recover_concurrency: Recovered runs at work at once.
        max_abandoned_threads: Threads left behind by timeouts, beyond which `def` handlers are refused.
        worker_threads: Threads for `def` handlers.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    checkpoint_enabled: bool = True
    checkpoint_every_step: bool = True
    checkpoint_storage: Literal["database", "file", "redis"] = "database"
    database_url: str | None = Field(default=None, repr=False)
    checkpoint_dir: str = ".spine/runs"
    redis_url: str | None = Field(default=None, repr=False)
    default_step_timeout: Seconds | None = 300
    workflow_timeout: Seconds | None = None
    default_retry_policy: InstanceOf[RetryPolicy] = RetryPolicy(max_attempts=3)
    emit_events: bool = True
    trace_enabled: bool = True
    max_concurrent_steps: Annotated[int, Field(ge=1)] | None = None
    max_step_visits: Annotated[int, Field(ge=1)] = 10_000
    dry_run: bool = False
    auto_migrate: bool = True
    durability: Durability = "full"
    lease_ttl: Seconds = 15
    store_timeout: Seconds | None = None
    drain_timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10
    cancel_grace: Seconds = 5
    max_claims: Annotated[int, Field(ge=1)] = 5
    recover_interval: Seconds = 10
    recover_concurrency: Annotated[int, Field(ge=1)] = 10
    max_abandoned_threads: Annotated[int, Field(ge=1)] = 20
    worker_threads: Annotated[int, Field(ge=1)] = 40
