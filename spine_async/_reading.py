"""The part of a runner that reads stored runs, and deletes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Literal, Unpack

from spine_async._arguments import check_limit, check_path, check_type, checked_page
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service import query
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.service.checkpoints import checkpoints, last_checkpoint
from spine_async._engine.service.followers import Followers
from spine_async._engine.service.retention import prune
from spine_async._engine.service.run_filters import RunFilters, as_run_filter
from spine_async._engine.service.visits import map_items, visit_records
from spine_async._engine.start.stored_run import load
from spine_async._model.history import Checkpoint, Event, RunRecord
from spine_async._model.naming import check_run_id
from spine_async._model.retention import RetentionPolicy
from spine_async._model.run_filter import RunCursor
from spine_async._model.shown import shown
from spine_async._model.status import RunStatus
from spine_async._model.visit_record import MapItems, VisitRecord
from spine_async.errors import DefinitionError

_MOST_COUNTED = 1_000_000


class RunReader:
    """Reads the runs of a store."""

    _runtime: Runtime
    _active_runs: ActiveRuns
    _followers: Followers

    async def get_run(self, run_id: str, *, with_outputs: bool = True) -> RunRecord:
        """The stored run; raises `RunNotFoundError` if there is none.

        Args:
            run_id: Id of the run.
            with_outputs: Whether the record of a completed run contains its outputs, which may be large.
        """
        async with self._active_runs.session():
            return await query.run_record(self._runtime, check_run_id(run_id), with_outputs=with_outputs)

    async def _status(self, run_id: str) -> RunStatus:
        """The stored status of the run; raises `RunNotFoundError` if there is none."""
        async with self._active_runs.session():
            return (await load(self._runtime, run_id)).status

    async def list_runs(
        self,
        *,
        order: Literal["newest", "oldest"] = "newest",
        with_params: bool = False,
        limit: int = 100,
        cursor: str | None = None,
        **filters: Unpack[RunFilters],
    ) -> list[RunRecord]:
        """Stored runs in the order of their creation.

        A listing by workflow, status or both reads an index, so its time does not depend on the number of stored runs.

        Args:
            order: `newest` or `oldest`: which runs come first.
            with_params: Whether the records contain the params of the runs.
            limit: Maximum number of runs, from 1 to 1,000.
            cursor: `cursor` of a record; continues the listing behind its run, whether or not that is still stored.
            filters: Only runs that match all of them, see `RunFilters`.

        Raises:
            ValueError: An argument is invalid, for instance the limit, the cursor or the status.
            TypeError: There is no filter with this name.
        """
        check_limit(limit)
        check_type("with_params", with_params, bool, "True or False")
        if order not in ("newest", "oldest"):
            raise ValueError(f"order is {shown(order)}; it must be 'newest' or 'oldest'")
        chosen = replace(
            as_run_filter(filters, self._runtime.config.max_value_bytes),
            cursor=RunCursor.parse(cursor) if cursor is not None else None,
            limit=limit,
            is_oldest_first=order == "oldest",
            with_documents=with_params,
        )
        async with self._active_runs.session():
            return await query.run_records(self._runtime, chosen)

    async def count_runs(self, *, limit: int = 10_000, **filters: Unpack[RunFilters]) -> dict[RunStatus, int]:
        """How many runs match the filters, for each status.

        Args:
            limit: At which number the counting of a status stops, from 1 to 1,000,000.
            filters: Which runs are counted, see `RunFilters`.

        Returns:
            The number of runs by status; all statuses are keys. A number that equals the limit may be larger in truth.

        Raises:
            ValueError: An argument is invalid, for instance the limit or the status.
            TypeError: There is no filter with this name.
        """
        check_limit(limit, _MOST_COUNTED)
        chosen = replace(as_run_filter(filters, self._runtime.config.max_value_bytes), limit=limit)
        async with self._active_runs.session():
            return await query.run_counts(self._runtime, chosen)

    async def list_checkpoints(self, run_id: str, *, limit: int = 100, after: int = 0) -> list[Checkpoint]:
        """The run's finished step visits in order, those of map items included, each with the context after it.

        The checkpoints of one call share values, so do not change their snapshots.

        Args:
            run_id: The run.
            limit: Maximum number of checkpoints, from 1 to 1,000.
            after: Only checkpoints with a greater `seq`; the `seq` of the last one continues a listing.

        Raises:
            RunNotFoundError: No such run is stored.
        """
        check_limit(limit)
        checked_page(run_id, after)
        async with self._active_runs.session():
            return await checkpoints(self._runtime, run_id, after, limit)

    async def list_visits(
        self, run_id: str, *, inside: str | None = None, after: int = 0, limit: int = 100, with_values: bool = False
    ) -> list[VisitRecord]:
        """The run's finished step visits in order, each with what it added. Cheaper than checkpoints.

        Args:
            run_id: The run.
            inside: Path of a map, a parallel step or a workflow step: the visits inside of it, of all depths. None
                means the visits of the run's own steps.
            after: Only visits with a greater `seq`; the `seq` of the last one continues a listing.
            limit: Maximum number of visits, from 1 to 1,000.
            with_values: Whether the records contain outputs and changes of params.

        Raises:
            RunNotFoundError: No such run is stored.
        """
        check_limit(limit)
        checked_page(run_id, after)
        if inside is not None:
            check_path("inside", inside)
        async with self._active_runs.session():
            return await visit_records(self._runtime, run_id, inside, max(after, 0), limit, with_values=with_values)

    async def map_items(self, run_id: str, path: str) -> MapItems:
        """The items of a map: which have completed, which have failed, and how long they took.

        On SQL stores this is one query for all items. Other stores read the events of the run.

        Args:
            run_id: The run.
            path: Path of the visit of the map, such as `process_all`.

        Raises:
            RunNotFoundError: No such run is stored.
        """
        check_path("path", path)
        async with self._active_runs.session():
            return await map_items(self._runtime, check_run_id(run_id), path)

    async def get_checkpoint(self, run_id: str, step: str) -> Checkpoint | None:
        """One checkpoint.

        Args:
            run_id: The run.
            step: Name of a step, for its last finished visit outside of map items; or the path of a visit, such as
                `review#2` or `process_all[17]/resize`.

        Returns:
            The checkpoint, or None if there is no such finished visit.

        Raises:
            RunNotFoundError: No such run is stored.
        """
        async with self._active_runs.session():
            return await last_checkpoint(self._runtime, check_run_id(run_id), step)

    async def events(self, run_id: str, after: int = 0, follow: bool = False) -> AsyncGenerator[Event, None]:  # noqa: FBT001, FBT002 - positional in the public interface
        """Events of the run with a number above `after`, in order.

        Args:
            run_id: The run.
            after: Only events with a greater `seq`. The `seq` of the last event that was read continues a reading.
            follow: Whether to wait for further events until the run has ended, wherever it is executed. False ends with
                the events that are stored now. Close an iterator that you leave early (`contextlib.aclosing`).

        Raises:
            RunNotFoundError: The run is not stored, or was deleted meanwhile.
            StoreError: The store cannot be read.
        """
        checked_page(run_id, after)
        async with self._active_runs.session():
            found = self._followers.follow(run_id, after) if follow else query.events(self._runtime, run_id, after)
            async with aclosing(found) as events:
                async for event in events:
                    yield event

    async def delete_run(self, run_id: str, *, force: bool = False) -> None:
        """Delete a run with its checkpoints and events.

        Args:
            run_id: Id of the run.
            force: Whether to delete a run that has not ended.

        Raises:
            RunNotFoundError: The run is not stored.
            RunConflictError: The run has not ended and `force` is False.
        """
        check_run_id(run_id)
        async with self._active_runs.session():
            await query.delete(self._runtime, run_id, force=force)

    async def prune(self, policy: RetentionPolicy | None = None) -> int:
        """Remove ended runs, with their checkpoints and events, in small batches.

        A run that has not ended, or whose parent has not ended, stays. Working runners do this by themselves if the
        config has a policy.

        Args:
            policy: Which runs are removed; None means the `retention` of the config.

        Returns:
            How many runs were removed.

        Raises:
            DefinitionError: There is no policy.
            StoreError: The store cannot be reached. Some of the runs may have been removed.

        Cancellation:
            The batch that is being deleted is removed completely; later ones stay.
        """
        check_type("policy", policy, RetentionPolicy, "a RetentionPolicy(…)")
        policy = policy or self._runtime.config.retention
        if policy is None:
            raise DefinitionError("prune() has no policy; pass a RetentionPolicy, or set `retention` in the config")
        async with self._active_runs.session():
            return await prune(self._runtime, policy)
