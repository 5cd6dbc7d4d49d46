"""The commands that change stored runs: `stop`, `signal`, `delete`, `prune`, `db upgrade`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from spine_async._model.retention import RetentionPolicy
from spine_async.cli.exit_code import ExitCode
from spine_async.cli.output import Output
from spine_async.cli.place import Place
from spine_async.cli.problem import CommandError, document_of, exit_code_of, text_of
from spine_async.errors import SpineError


async def stop_runs(
    output: Output, place: Place, run_ids: Sequence[str], reason: str | None, *, compensate: bool
) -> int:
    """Stop runs, wherever they are."""
    async with place.open() as runner:

        async def stop(run_id: str) -> dict[str, object]:
            was_under_way = await runner.stop(run_id, reason, compensate=compensate)
            output.line(f"run {run_id} {'is stopped' if was_under_way else 'had already ended'}")
            return {"run_id": run_id, "was_under_way": was_under_way}

        return await _each(output, run_ids, stop)


async def delete_runs(output: Output, place: Place, run_ids: Sequence[str], *, force: bool) -> int:
    """Delete runs with their checkpoints and events."""
    async with place.open() as runner:

        async def delete(run_id: str) -> dict[str, object]:
            await runner.delete_run(run_id, force=force)
            output.line(f"run {run_id} is deleted")
            return {"run_id": run_id, "deleted": True}

        return await _each(output, run_ids, delete)


async def _each(output: Output, run_ids: Sequence[str], change: Callable[[str], Awaitable[dict[str, object]]]) -> int:
    """Change each run; an error for one run does not affect the others."""
    code = ExitCode.COMPLETED
    documents: list[dict[str, object]] = []
    for run_id in run_ids:
        try:
            documents.append(await change(run_id))
        except SpineError as exc:
            code = max(code, exit_code_of(exc))
            documents.append({"run_id": run_id, **document_of(exc)})
            if not output.is_json:
                output.note(f"error: {text_of(exc)}")
    if output.is_json:
        output.json({"runs": documents})
    return code


async def send_signal(output: Output, place: Place, run_id: str, name: str, value: object, *, key: str | None) -> int:
    """Send a signal to a run."""
    async with place.open() as runner:
        await runner.signal(run_id, name, value, idempotency_key=key)
    if output.is_json:
        output.json({"run_id": run_id, "signal": name})
    output.line(f"signal {name} is stored for run {run_id}")
    return ExitCode.COMPLETED


async def prune_runs(output: Output, place: Place, policy: RetentionPolicy | None) -> int:
    """Remove ended runs."""
    async with place.open() as runner:
        if policy is None and runner.config.retention is None:
            raise CommandError(
                "say what is removed: --completed, --failed and --stopped with an age such as 30d, or --keep-last"
            )
        removed = await runner.prune(policy)
    if output.is_json:
        output.json({"removed": removed})
    output.line(f"removed {removed:,} {'run' if removed == 1 else 'runs'}")
    return ExitCode.COMPLETED


async def upgrade_database(output: Output, place: Place) -> int:
    """Create or upgrade the tables."""
    from spine_async.storage.sql.schema.tables import VERSION  # noqa: PLC0415 - imports SQLAlchemy
    from spine_async.storage.sql.upgrade import upgrade_schema  # noqa: PLC0415 - the same

    await upgrade_schema(place.check_url())
    if output.is_json:
        output.json({"schema_version": VERSION})
    output.line(f"{place.shown} has schema version {VERSION}")
    return ExitCode.COMPLETED
