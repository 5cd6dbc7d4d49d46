"""One run of a file store in memory, made by repeating the calls that its log contains.

The rules of the contract (fences, claims, leases, derived events) are those of the memory store. The log contains the
calls that have changed the run.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Busy, Claim, Renewal
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.visit_row import EventRow
from spine_async.errors import StoreError
from spine_async.ports import CommitOutcome
from spine_async.storage.boot_clock import BootTime, boot_time
from spine_async.storage.form import from_form, to_form
from spine_async.storage.memory import MemoryRunStore

AnswerT = TypeVar("AnswerT")

FORMAT = 1
_ENDED_LONG_AGO = -1e18  # seconds; a lease of an earlier boot


class Replica:
    """The state of one run. It does no I/O; the caller writes the entries that the methods return to the log.

    Attributes:
        store: The run, in a store of its own; empty before the creation.
        run_id: The run.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._clock = _ReplayClock()
        self._keys = list[int]()
        self.store = MemoryRunStore(self._clock, iter(self._keys))
        self._last_commit: tuple[int, str] | None = None

    @property
    def run(self) -> StoredRun | None:
        """The run in its current state."""
        return finished(self.store.load(self.run_id))

    def create(self, new: NewRun, key: int) -> tuple[Claim | None, dict[str, Any] | None]:
        """Create the run; returns the answer of the store, and the entry unless nothing was changed."""
        if self.run is not None:
            return finished(self.store.create([new]))[0], None
        entry = {"call": "create", "format": FORMAT, "key": key, **_reading(), "run": to_form(new)}
        return self._create(new, key), entry

    def claim(
        self, owner: str, event: EventRow | None, ttl: float, over_epoch: int | None, *, unless_ended: bool
    ) -> tuple[Claim | Busy | None, dict[str, Any] | None]:
        """Claim the run."""
        answer = finished(
            self.store.claim(self.run_id, owner, event, ttl=ttl, over_epoch=over_epoch, unless_ended=unless_ended)
        )
        if not isinstance(answer, Claim):
            return answer, None
        stored_event = to_form(event) if event is not None else None
        return answer, {"call": "claim", **_reading(), "owner": owner, "ttl": ttl, "event": stored_event}

    def commit(self, change: RunChange) -> tuple[CommitOutcome, dict[str, Any] | None]:
        """Commit a change."""
        is_repeated = (change.epoch, change.commit_id) == self._last_commit
        (outcome,) = finished(self.store.commit([change]))
        if outcome is not CommitOutcome.COMMITTED or is_repeated:
            return outcome, None
        self._last_commit = (change.epoch, change.commit_id)
        form = to_form(change)
        del form["run_id"], form["key"]
        return outcome, {"call": "commit", **form}

    def renew(self, claim: Claim, ttl: float) -> tuple[Renewal, dict[str, Any] | None]:
        """Renew the lease; only a release changes the log."""
        (renewal,) = finished(self.store.renew([claim], ttl))
        is_released = renewal.is_held and ttl <= 0
        entry = {"call": "release", "key": claim.key, "epoch": claim.epoch, "at": _reading()["at"]}
        return renewal, entry if is_released else None

    def request_stop(self, reason: str) -> tuple[bool, dict[str, Any] | None]:
        """Ask the owner to stop the run."""
        is_under_way = finished(self.store.request_stop(self.run_id, reason))
        return is_under_way, {"call": "stop", "reason": reason} if is_under_way else None

    def extend_lease(self, epoch: int, until: BootTime, ttl: float) -> None:
        """Apply a renewal that another process has made."""
        run = self.run
        if run is not None and run.epoch == epoch and until.boot == boot_time().boot:
            claim = Claim(self.run_id, self._keys[0], epoch, run.next_seq)
            with self._clock.at(datetime.now(UTC), until.seconds - ttl):
                finished(self.store.renew([claim], ttl))

    def repeat(self, entry: Mapping[str, Any]) -> None:
        """Apply a call that the log contains.

        Raises:
            ValueError, TypeError, LookupError: The entry is invalid.
            StoreError: A newer version of the library has written the log.
        """
        match entry["call"]:
            case "create":
                self._repeat_create(entry)
            case "claim":
                self._repeat_claim(entry)
            case "commit":
                self._repeat_commit(entry)
            case "stop":
                finished(self.store.request_stop(self.run_id, str(entry["reason"])))
            case "release":
                self._repeat_release(entry)
            case _:
                raise ValueError("the log contains an unknown call")

    def _create(self, new: NewRun, key: int) -> Claim | None:
        self._keys.append(key)
        return finished(self.store.create([new]))[0]

    def _repeat_create(self, entry: Mapping[str, Any]) -> None:
        if entry["format"] > FORMAT:
            raise StoreError(
                f"run {self.run_id!r} was written by a newer version of spine_async (format {entry['format']}, this "
                f"version knows {FORMAT}); update spine_async"
            )
        with self._clock.at(*_time_of(entry)):
            self._create(from_form(NewRun, entry["run"]), entry["key"])

    def _repeat_claim(self, entry: Mapping[str, Any]) -> None:
        event = from_form(EventRow, entry["event"]) if entry["event"] is not None else None
        epoch = self.run.epoch if self.run is not None else 0
        with self._clock.at(*_time_of(entry)):
            finished(self.store.claim(self.run_id, entry["owner"], event, ttl=entry["ttl"], over_epoch=epoch))

    def _repeat_commit(self, entry: Mapping[str, Any]) -> None:
        form = {name: value for name, value in entry.items() if name not in {"call", "crc"}}
        change = from_form(RunChange, {**form, "run_id": self.run_id, "key": self._keys[0]})
        with self._clock.at(change.at, _ENDED_LONG_AGO):
            finished(self.store.commit([change]))
        self._last_commit = (change.epoch, change.commit_id)

    def _repeat_release(self, entry: Mapping[str, Any]) -> None:
        claim = Claim(self.run_id, entry["key"], entry["epoch"], 0)
        with self._clock.at(datetime.fromisoformat(entry["at"]), _ENDED_LONG_AGO):
            finished(self.store.renew([claim], 0.0))


def finished(call: Coroutine[object, object, AnswerT]) -> AnswerT:
    """The answer of a call that awaits nothing, as no call of a memory store does."""
    try:
        call.send(None)
    except StopIteration as stop:
        answer: AnswerT = stop.value
        return answer
    raise RuntimeError("the call has not finished")


class _ReplayClock:
    """The clocks of the host; while a call is repeated, the time at which it was made."""

    def __init__(self) -> None:
        self._fixed: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        return self._fixed[0] if self._fixed is not None else datetime.now(UTC)

    def monotonic(self) -> float:
        return self._fixed[1] if self._fixed is not None else boot_time().seconds

    @contextmanager
    def at(self, now: datetime, seconds: float) -> Iterator[None]:
        """Inside, the clocks stand still."""
        self._fixed = (now, seconds)
        try:
            yield
        finally:
            self._fixed = None


def _reading() -> dict[str, Any]:
    """The time of a call: on the wall, and since the boot of the host."""
    now = boot_time()
    return {"at": datetime.now(UTC).isoformat(), "boot": now.boot, "seconds": now.seconds}


def _time_of(entry: Mapping[str, Any]) -> tuple[datetime, float]:
    is_this_boot = entry["boot"] == boot_time().boot
    return datetime.fromisoformat(entry["at"]), entry["seconds"] if is_this_boot else _ENDED_LONG_AGO
