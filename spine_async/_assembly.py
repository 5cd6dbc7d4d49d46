"""Assembles the runtime of a runner from config, store, dispatcher and telemetry."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from spine_async._clock import SystemClock
from spine_async._engine.commit.guarded_store import guarded
from spine_async._engine.commit.journal import Journal
from spine_async._engine.commit.null_journal import NullJournal
from spine_async._engine.runtime.runtime import Executor, Runtime
from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.status import StepType
from spine_async._threads import WorkerThreads
from spine_async.ports import Clock, Dispatcher, Observer, RunStore
from spine_async.storage.null import NullRunStore
from spine_async.storage.selection import open_store

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from sqlalchemy.ext.asyncio import AsyncEngine

    from spine_async.telemetry.metrics import RunnerMetrics


def with_arguments(config: WorkflowRunnerConfig, **given: bool | None) -> WorkflowRunnerConfig:
    """The config with the settings in `given` that are not None."""
    return config.model_copy(update={name: value for name, value in given.items() if value is not None})


def assemble_runtime(
    config: WorkflowRunnerConfig,
    *,
    executors: Mapping[StepType, Executor],
    has_own_nesting: bool,
    db_engine: AsyncEngine | None,
    store: RunStore | None,
    dispatcher: Dispatcher | None,
    clock: Clock | None,
    tracer: Tracer,
    metrics: RunnerMetrics,
) -> Runtime:
    """Create a runtime; performs no I/O.

    Args:
        config: Settings of the runner.
        executors: Executes one attempt of a step, by the type of the step.
        has_own_nesting: Whether the executor of a kind of step that executes others is overridden, so that it may
            execute such a step several times.
        db_engine: Database of the runs; None means the database of the config.
        store: Store of the runs, instead of a database.
        dispatcher: Runs the pipelines of pipeline steps.
        clock: Source of time; None means the system clock.
        tracer: Creates spans if `trace_enabled`.
        metrics: Instruments of the runner.

    Raises:
        StoreError: The configured kind of store does not exist.
    """
    is_durable = config.checkpoint_enabled and not config.dry_run
    given_store = store or open_store(config, db_engine) if is_durable else NullRunStore()
    chosen_store = guarded(given_store) if is_durable else given_store
    chosen_clock = clock or SystemClock()
    # Each step commits. The journal itself handles all errors; only the answers of foreign stores need a check.
    commit_store = chosen_store if store is not None else given_store
    return Runtime(
        config=config,
        store=chosen_store,
        journal=_journal(commit_store, chosen_clock, config.lease_ttl, metrics) if is_durable else NullJournal(),
        clock=chosen_clock,
        observer=_observer(config, tracer, metrics),
        executors=executors,
        middleware=[],
        dispatcher=dispatcher,
        random=random.random,
        threads=WorkerThreads(config.worker_threads, config.max_abandoned_threads, metrics.record_abandoned_thread),
        measurements=metrics,
        is_dry=config.dry_run,
        has_own_nesting=has_own_nesting,
    )


def _observer(config: WorkflowRunnerConfig, tracer: Tracer, metrics: RunnerMetrics) -> Observer:
    # Imported here, because importing OpenTelemetry slows down a program that only defines workflows.
    if not config.trace_enabled:
        from spine_async.telemetry.silent import SilentObserver  # noqa: PLC0415

        return SilentObserver(metrics)
    from spine_async.telemetry.tracing import TracingObserver  # noqa: PLC0415

    return TracingObserver(tracer, metrics)


def _journal(store: RunStore, clock: Clock, lease_ttl: float, metrics: RunnerMetrics) -> Journal:
    # Optional attribute of a store, not part of the port: it only makes commits faster.
    commits_out_of_process = getattr(store, "commits_out_of_process", False)
    return Journal(
        store,
        clock,
        commits_out_of_process=commits_out_of_process,
        max_lock_wait=lease_ttl,
        measurements=metrics,
    )
