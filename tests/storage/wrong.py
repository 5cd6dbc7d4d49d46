"""Stores that violate the contract on purpose, each in one way, and the conformance case that is meant for each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from spine_async._model.due import Delivery, DueRequest, DueRun, NewMessage, Notice, Sweep
from spine_async._model.fork import ForkOutcome, NewFork
from spine_async._model.run_change import Release, RunChange
from spine_async._model.run_claim import Claim
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import StoredRun
from spine_async._model.schedule_state import ScheduleChange
from spine_async._model.status import RunStatus
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import VisitRow
from spine_async.ports import CommitOutcome, DeleteIf
from spine_async.storage import MemoryRunStore
from spine_async.storage.visit_selection import select_visits


class ChildrenEndSilently(MemoryRunStore):
    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        return await super().commit([replace(each, notified_run_id=None) for each in changes])


class FencedChildrenSendMessages(MemoryRunStore):
    def _commit(self, change: RunChange) -> CommitOutcome:
        outcome = super()._commit(change)
        if outcome is CommitOutcome.FENCED:
            self._notify(change)
        return outcome


class ParksWithoutReadingTheInbox(MemoryRunStore):
    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        outcomes = await super().commit([replace(each, release=_blind(each.release)) for each in changes])
        for each in changes:
            self._runs[each.run_id].has_news = False
        return outcomes


def _blind(release: Release | None) -> Release | None:
    return replace(release, awaits_messages=False) if release is not None else None


class ForksWholeRuns(MemoryRunStore):
    async def fork(self, new: NewFork) -> ForkOutcome:
        return await super().fork(replace(new, until=self._runs[new.source_id].next_seq - 1))


class ForksEditTheSource(MemoryRunStore):
    async def fork(self, new: NewFork) -> ForkOutcome:
        outcome = await super().fork(new)
        for row in self._runs[new.source_id].visits:
            row.output = new.outputs.get(row.path, row.output)
        return outcome


class ForksMoveTheSource(MemoryRunStore):
    async def fork(self, new: NewFork) -> ForkOutcome:
        outcome = await super().fork(new)
        self._runs.pop(new.source_id, None)
        return outcome


class ForksOfLaterRuns(MemoryRunStore):
    """Forks a later run with the same id."""

    async def fork(self, new: NewFork) -> ForkOutcome:
        source = self._runs.get(new.source_id)
        return await super().fork(replace(new, source_created_at=source.stored.created_at) if source else new)


class SchedulesWithoutVersions(MemoryRunStore):
    async def change_schedule(self, change: ScheduleChange) -> bool:
        for stored in await self.schedules([change.name]):
            change = replace(change, version=stored.version)
        return await super().change_schedule(change)


class SchedulesWithoutRuns(MemoryRunStore):
    async def change_schedule(self, change: ScheduleChange) -> bool:
        return await super().change_schedule(replace(change, run=None))


class KeysForgottenWithTheirMessages(MemoryRunStore):
    async def send(self, message: NewMessage) -> Delivery:
        found = self._runs.get(message.run_id)
        if found is not None and not found.messages:
            found.known_keys.clear()
        return await super().send(message)


class MessagesInAnyOrder(MemoryRunStore):
    async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
        return [replace(each, messages=each.messages[::-1]) for each in await super().notices(claims)]


class MessagesStayWhenTaken(MemoryRunStore):
    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        return await super().commit([replace(each, taken=()) for each in changes])


class LimitsOfOneOwner(MemoryRunStore):
    """Counts only the runs of the claiming owner."""

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        limits = [replace(each, concurrency=None, per_process=each.concurrency) for each in request.limits]
        return await super().claim_due(replace(request, limits=tuple(limits)))


class PrioritiesIgnored(MemoryRunStore):
    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        for each in self._runs.values():
            each.stored = replace(each.stored, priority=0)
        return await super().claim_due(request)


class LaterVersionsAreClaimed(MemoryRunStore):
    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        return await super().claim_due(replace(request, workflows=dict.fromkeys(request.workflows, 1_000)))


class NothingIsSpared(MemoryRunStore):
    async def sweep(
        self, gone: Collection[str] = (), lapsed: Collection[str] = (), spared: Collection[str] = ()
    ) -> Sweep:
        return await super().sweep(gone, lapsed)


class WakingCounts(MemoryRunStore):
    """A run that wakes is one more take-over."""

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        return await super().commit([replace(each, release=_counting(each.release)) for each in changes])


def _counting(release: Release | None) -> Release | None:
    return replace(release, counts=True) if release is not None else None


class CursorsThatLookUpTheirRun(MemoryRunStore):
    """A listing ends if the run of its cursor was deleted."""

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        keys = {each.key for each in self._runs.values()}
        return await super().runs(chosen) if chosen.cursor is None or chosen.cursor.key in keys else []


class CountsWithoutALimit(MemoryRunStore):
    async def count_runs(self, chosen: RunFilter) -> dict[RunStatus, int]:
        return await super().count_runs(replace(chosen, limit=1_000_000))


class PartitionsComparedAsText(MemoryRunStore):
    """Finds an entry anywhere in the text of the partition, also inside another value."""

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        found = await super().runs(replace(chosen, partition={}))
        wanted = [f'"{name}":{value}' for name, value in chosen.partition.items()]
        return [each for each in found if all(entry in (each.partition or "") for entry in wanted)]


class PagesOfOneScopeOnly(MemoryRunStore):
    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        return await super().visits(run_id, replace(chosen, scopes=chosen.scopes[:1]) if chosen.scopes else chosen)


class PagesCutBeforeTheyAreFiltered(MemoryRunStore):
    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        page = await super().visits(run_id, VisitFilter(after=chosen.after, limit=chosen.limit))
        return list(select_visits(page, chosen))


class ChildrenOfRunsUnderWayAreRemoved(MemoryRunStore):
    async def delete(self, run_ids: Sequence[str], condition: DeleteIf = DeleteIf.STORED) -> list[str]:
        return await super().delete(run_ids, DeleteIf.ENDED if condition is DeleteIf.UNUSED else condition)


WRONG: dict[type[MemoryRunStore], str] = {
    ChildrenEndSilently: "test_several_children_end_in_one_group",
    FencedChildrenSendMessages: "test_a_fenced_end_sends_nothing",
    ParksWithoutReadingTheInbox: "test_a_parent_that_is_parked_after_the_end_is_due_at_once",
    ForksWholeRuns: "test_rows_and_events_up_to_the_number_are_copied",
    ForksEditTheSource: "test_outputs_are_replaced_in_the_copy_only",
    ForksMoveTheSource: "test_the_new_run_has_no_owner_and_names_its_source",
    ForksOfLaterRuns: "test_a_taken_id_and_a_missing_source_store_nothing",
    SchedulesWithoutVersions: "test_of_two_changes_of_one_version_only_the_first_is_made",
    SchedulesWithoutRuns: "test_a_change_stores_its_run",
    KeysForgottenWithTheirMessages: "test_a_key_stays_known_after_the_message_was_taken",
    MessagesInAnyOrder: "test_messages_come_in_the_order_of_their_arrival",
    MessagesStayWhenTaken: "test_a_commit_takes_messages",
    LimitsOfOneOwner: "test_concurrency_limits_the_held_runs_of_all_workers",
    PrioritiesIgnored: "test_a_lower_priority_number_comes_first",
    LaterVersionsAreClaimed: "test_a_run_of_a_higher_version_is_left_to_others",
    NothingIsSpared: "test_a_sweep_spares_runs_of_a_lapsed_owner",
    WakingCounts: "test_waking_counts_as_no_take_over",
    CursorsThatLookUpTheirRun: "test_a_listing_continues_behind_a_run_that_was_deleted",
    CountsWithoutALimit: "test_counts_are_by_status_and_stop_at_the_limit",
    PagesOfOneScopeOnly: "test_a_page_has_the_entries_of_several_scopes",
    PagesCutBeforeTheyAreFiltered: "test_a_page_has_the_entries_of_all_scopes_or_of_one",
    ChildrenOfRunsUnderWayAreRemoved: "test_a_child_is_not_deleted_with_others_before_its_parent_has_ended",
}
"""The wrong stores, with the name of the case that must find each of them."""
