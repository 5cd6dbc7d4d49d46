"""Settings of the runner."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf

from spine_async._model.durability import Durability
from spine_async._model.limits import MAX_LEASE_TTL, MAX_VALUE_BYTES
from spine_async._model.policy import RetryPolicy
from spine_async._model.retention import RetentionPolicy

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class WorkflowRunnerConfig(BaseModel):
    """Settings of a `WorkflowRunner`. Durations are in seconds; None means no limit.

    Attributes:
        checkpoint_enabled: Whether runs are stored.
        checkpoint_every_step: True commits after every step. False commits only after steps with `checkpoint=True`,
            when a map item ends, when a wait begins, when a step has run for half a second, and at the end of a run.
            After a crash, a resume repeats the uncommitted steps.
        checkpoint_storage: `database`; `file` for a folder per run; `redis` for the Redis server at `redis_url`. Files
            and Redis have no queues and no signals.
        database_url: URL of the database, with the options of libpq; None means `SPINE_DATABASE_URL`, or
            `.spine/runs.db` if that is not set. An empty text, here or in the variable, is refused.
        checkpoint_dir: Folder of the file store.
        redis_url: URL of the Redis server: `redis://`, `rediss://` or `unix://`; `?prefix=name` gives the prefix of its
            keys.
        default_step_timeout: Limit for each attempt of a lambda, pipeline or transaction step without a timeout of its
            own.
        workflow_timeout: Limit for a whole run, counted from its first start; a run that exceeds it fails with category
            TIMEOUT. A `resume` of a run that has ended starts the limit again.
        default_retry_policy: Policy of steps with `on_error=RETRY` and without a policy of their own.
        emit_events: Whether runs record events.
        trace_enabled: Whether the runner creates spans.
        max_concurrent_steps: Maximum number of lambda, pipeline and transaction steps that run at the same time in the
            runner.
        max_step_visits: Maximum number of visits of one step in one run; a run that exceeds it fails, so that it cannot
            loop forever.
        max_value_bytes: Largest output, param, param update, event or map item, in bytes of its JSON text; 64 MB by
            default, 256 MB at most. A step that returns a larger value fails with category INTERNAL; `execute` and
            `resume` raise `InvalidParamsError` for a larger param.
        dry_run: Whether to run without writing anything.
        auto_migrate: Whether the first use of the database creates or upgrades its schema.
        durability: The failures that a committed step survives on SQLite. `full`: also a power failure. `process`: only
            the end of the process; commits do not wait for the disk. PostgreSQL applies its own `synchronous_commit`.
        lease_ttl: Time until the lease of a run expires; the owner renews it after each third of this time.
        store_timeout: Limit for one call of the database, retries included; a longer call raises
            `StoreUnavailableError`. None means two thirds of `lease_ttl`, but at least 5 seconds. A connection that
            does not answer for half of this time is replaced. On SQLite it limits the wait for the locks of other
            processes. It does not apply to a store that is passed as `store=`.
        drain_timeout: How long running steps may continue after the exit of `async with runner`.
        cancel_grace: How long a cancelled step may take to end; after that it is reported and abandoned.
        max_claims: Maximum number of claims of a run without progress, after deaths of its owners; after that it fails
            as a poison run.
        max_pending_events: Maximum number of events of one run that its steps have emitted and that are not stored yet;
            `context.emit` raises beyond it.
        worker_concurrency: Maximum number of claimed runs that a working runner executes at the same time.
        park_after: A background run that only waits, and for longer than this, is parked: it uses no memory and no
            lease until the wait ends.
        poll_interval: How often a working runner looks for due runs if no change is reported to it.
        retention: Which ended runs are removed, by working runners in the background and by `runner.prune()`. None
            keeps all runs.
        retention_interval: How often a working runner removes ended runs, on average.
        max_abandoned_threads: Number of threads abandoned by timeouts at which further `def` handlers are refused.
        worker_threads: Maximum number of threads for `def` handlers.
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
    max_value_bytes: Annotated[int, Field(ge=1, le=MAX_VALUE_BYTES)] = 64 * 1024 * 1024
    dry_run: bool = False
    auto_migrate: bool = True
    durability: Durability = "full"
    lease_ttl: Annotated[float, Field(gt=0, le=MAX_LEASE_TTL, allow_inf_nan=False)] = 15
    store_timeout: Seconds | None = None
    drain_timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10
    cancel_grace: Seconds = 5
    max_claims: Annotated[int, Field(ge=1)] = 5
    max_pending_events: Annotated[int, Field(ge=1)] = 10_000
    worker_concurrency: Annotated[int, Field(ge=1)] = 100
    park_after: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5
    poll_interval: Seconds = 0.5
    retention: InstanceOf[RetentionPolicy] | None = None
    retention_interval: Seconds = 300
    max_abandoned_threads: Annotated[int, Field(ge=1)] = 20
    worker_threads: Annotated[int, Field(ge=1)] = 40
