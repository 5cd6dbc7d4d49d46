"""Requests: scripts with their keys and arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spine_async._model.run_change import RunChange, RunEnd
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import NewRun
from spine_async._model.status import FINISHED, RunStatus
from spine_async._model.visit_row import EventRow
from spine_async.storage.derived_events import started_event
from spine_async.storage.redis import rows
from spine_async.storage.redis.keys import (
    Keys,
    containers,
    event_place,
    first_place,
    hashed,
    path_place,
    scope_entry,
    step_place,
    time_prefix,
)
from spine_async.storage.redis.scripts import CLAIM, COMMIT, CREATE, Script

Argument = str | bytes | int

_END = ("error_step", "error", "error_category", "stop_reason")


@dataclass(frozen=True, slots=True)
class Request:
    """A call of a script."""

    script: Script
    keys: tuple[str, ...]
    arguments: Sequence[Argument] = ()

    def command(self) -> list[bytes]:
        """The command for the server, which finds the script by its hash."""
        parts: list[Argument] = ["EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.arguments]
        return [part if isinstance(part, bytes) else rows.encoded(str(part)) for part in parts]


def creation(keys: Keys, new: NewRun) -> Request:
    """Create a run."""
    is_started = new.records_events and new.is_held
    arguments: list[Argument] = [
        new.commit_id,
        int(new.is_held),
        milliseconds(new.lease_ttl),
        time_prefix(new.created_at),
        hashed(new.run_id),
        rows.workflow_of(new),
        new.workflow_name,
        new.next_seq,
        (RunStatus.RUNNING if new.is_held else RunStatus.PENDING).value,
        rows.event_line(started_event(new)) if is_started else "",
        *_counted(rows.run_fields(new, keys)),
    ]
    return Request(CREATE, (keys.run(new.run_id), keys.runs), arguments)


def claim(
    keys: Keys,
    run_id: str,
    owner: str,
    event: EventRow | None,
    *,
    ttl: float,
    over_epoch: int | None,
    unless_ended: bool,
    token: str,
    now: str,
) -> Request:
    """Claim a run; `now` is the time of a claim without an event, in ISO 8601."""
    arguments: list[Argument] = [
        owner,
        milliseconds(ttl),
        over_epoch if over_epoch is not None else "",
        int(unless_ended),
        token,
        event.timestamp.isoformat() if event is not None else now,
        rows.event_line(event) if event is not None else "",
        event_place(event.event_type, event.path) if event is not None else "",
    ]
    return Request(CLAIM, (keys.run(run_id), keys.runs), arguments)


def commit(keys: Keys, change: RunChange) -> Request:
    """Write a change.

    Raises:
        StoreError: A visit is larger than a server accepts.
    """
    release = change.release
    end = change.end if release is None else release.restored
    status = end.status if end is not None else release.status if release is not None else change.status
    visits = sorted(change.visits, key=lambda each: each.seq)
    lines = [rows.visit_member(each) for each in visits]
    arguments: list[Argument] = [
        change.key,
        change.epoch,
        change.expected_seq,
        change.next_seq,
        change.commit_id,
        int(change.makes_progress),
        int(release is not None and release.counts),
        status.value,
        *_counted(_set_fields(change, end)),
        *_counted([(name,) for name in _cleared_fields(change, end)]),
        *_counted([(each.seq, line) for each, (line, _) in zip(visits, lines, strict=True)]),
        *_counted([(each.seq, blob) for each, (_, blob) in zip(visits, lines, strict=True) if blob]),
        *_counted([(each.seq, rows.event_member(each)) for each in change.events]),
        *_counted([(scope_entry(each.scope, each.seq),) for each in visits]),
        *_counted(_places(change)),
        *_counted([(first_place(path), each.seq) for each in visits for path in containers(each.scope)]),
    ]
    return Request(COMMIT, (keys.run(change.run_id), keys.runs), arguments)


def of_claim(keys: Keys, script: Script, held: Claim, *arguments: Argument) -> Request:
    """A script for the holder of a claim."""
    return Request(script, (keys.run(held.run_id), keys.runs), [held.key, held.epoch, *arguments])


def milliseconds(seconds: float) -> int:
    """The duration in whole milliseconds, at least one unless it is zero."""
    return max(1, round(seconds * 1000)) if seconds > 0 else 0


def _counted(entries: Sequence[tuple[Argument, ...]]) -> list[Argument]:
    """The entries one after the other, with their number in front."""
    return [len(entries), *(part for entry in entries for part in entry)]


def _set_fields(change: RunChange, end: RunEnd | None) -> list[tuple[Argument, ...]]:
    fields: list[tuple[str, str | None]] = [("updated_at", change.at.isoformat()), ("traceparent", change.traceparent)]
    if end is not None:
        fields += [(name, getattr(end, name)) for name in _END]
        fields.append(("completed_at", end.at.isoformat()))
    if change.release is not None and change.release.due is not None:
        fields.append(("due_at", change.release.due.at.isoformat()))
    return [(name, value) for name, value in fields if value is not None]


def _cleared_fields(change: RunChange, end: RunEnd | None) -> list[str]:
    cleared = ["owner"] if end is not None or change.release is not None else []
    if end is not None:
        cleared += [name for name in _END if getattr(end, name) is None]
    return [*cleared, "stop_requested"] if end is not None else cleared


def _places(change: RunChange) -> list[tuple[Argument, ...]]:
    """Where the visits and events of the change are found by their names; later ones replace earlier ones."""
    visits = sorted(change.visits, key=lambda each: each.seq)
    events = sorted(change.events, key=lambda each: each.seq)
    by_path: Iterable[tuple[str, Argument]] = ((path_place(each.path), each.seq) for each in visits)
    by_step = ((step_place(each.step_name), each.seq) for each in visits if not each.scope and each.status in FINISHED)
    by_type = ((event_place(each.event_type, each.path), rows.event_member(each)) for each in events)
    return list({**dict(by_path), **dict(by_step), **dict(by_type)}.items())
