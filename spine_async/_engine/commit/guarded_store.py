"""A store that raises only errors of this library, whatever the wrapped store raises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence, Sized
from pathlib import Path
from typing import Any, cast

from spine_async._engine.commit.isolation import store_error
from spine_async._model.fork import ForkOutcome
from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_row import StoredRun
from spine_async._model.schedule_state import StoredSchedule
from spine_async._model.visit_record import ItemState
from spine_async._model.visit_row import EventRow, PastPage, VisitRow
from spine_async.errors import SpineError, StoreError
from spine_async.ports import (
    CommitOutcome,
    DueRunStore,
    ForkStore,
    LastRowStore,
    OutlineStore,
    RunStore,
    ScheduleStore,
    SummaryStore,
)

_ABSENT = type(None)
_OPTIONAL = (DueRunStore, ForkStore, LastRowStore, OutlineStore, ScheduleStore, SummaryStore)
"""The capabilities that a store need not have."""
_ANSWERS: dict[str, tuple[type, ...]] = {
    "claim": (Claim, Busy, _ABSENT),
    "claim_queued": (Claim, Busy, NoRoom, _ABSENT),
    "load": (StoredRun, _ABSENT),
    "past_visits": (PastPage,),
    "last_visit": (VisitRow, _ABSENT),
    "last_event": (EventRow, _ABSENT),
    "request_stop": (bool,),
    "count_runs": (dict,),
    "fork": (ForkOutcome,),
    "change_schedule": (bool,),
}
"""Methods that return one value, with its types."""

_ELEMENTS: dict[str, tuple[type, ...]] = {
    "create": (Claim, _ABSENT),
    "commit": (CommitOutcome,),
    "renew": (Renewal,),
    "visits": (VisitRow,),
    "visit_outlines": (VisitRow,),
    "item_states": (ItemState,),
    "runs": (StoredRun,),
    "delete": (str,),
    "workflow_names": (str,),
    "events": (EventRow,),
    "schedules": (StoredSchedule,),
}
"""Methods that return a list, with the types of its elements."""

_BATCHES = frozenset({"create", "commit", "renew"})
"""Methods that return one element for each element of their first argument."""


def guarded(store: RunStore) -> RunStore:
    """The store, with every error that is none of this library raised as a `StoreError`, whose cause is the error."""
    return cast("RunStore", _GuardedStore(store))


class _GuardedStore:
    """Forwards all attributes; a method is wrapped when it is first used."""

    def __init__(self, store: RunStore) -> None:
        self._store = store

    @property
    def store_name(self) -> str:
        """Name of the class of the wrapped store, for messages."""
        return type(self._store).__name__

    @property
    def location(self) -> str:
        """Where the runs are stored."""
        return str(getattr(self._store, "location", type(self._store).__name__))

    def __getattr__(self, name: str) -> Any:
        is_optional = any(hasattr(port, name) for port in _OPTIONAL) and hasattr(self._store, name)
        # A foreign error of `open` prevents entering the runner.
        if name in {"open", "listen"} or not (hasattr(RunStore, name) or is_optional):
            return getattr(self._store, name)
        method = self.__dict__[name] = self._guarded_method(name)
        return method

    def _guarded_method(self, name: str) -> Callable[..., Awaitable[Any]]:
        call, store = f"{type(self._store).__name__}.{name}", self._store

        async def method(*arguments: Any, **named: Any) -> Any:
            try:
                answer = await getattr(store, name)(*arguments, **named)
                _check(name, call, answer, arguments)
            except SpineError:
                raise
            except Exception as exc:
                raise store_error(exc, f"{call} raised an error{_place(exc)}") from exc
            return answer

        return method


def _check(name: str, call: str, answer: object, arguments: Sequence[Sized]) -> None:
    """Refuse an answer of the wrong type or length."""
    elements = _ELEMENTS.get(name)
    if elements is None:
        if not isinstance(answer, _ANSWERS.get(name, object)):
            raise _wrong(call, answer, "", _ANSWERS[name])
        return
    if not isinstance(answer, (list, tuple)):
        raise _wrong(call, answer, "a list of ", elements)
    for each in answer:
        if not isinstance(each, elements):
            raise _wrong(call, each, "a list of ", elements)
    if name in _BATCHES and len(answer) != len(arguments[0]):
        raise StoreError(f"{call} gave {len(answer)} answers for {len(arguments[0])} records")


def _wrong(call: str, value: object, what: str, expected: tuple[type, ...]) -> StoreError:
    names = " or ".join("None" if each is _ABSENT else each.__name__ for each in expected)
    return StoreError(f"{call} returned a value of type {type(value).__name__}; it must return {what}{names}")


def _place(exc: Exception) -> str:
    """Where the exception was raised: the innermost frame."""
    frame = exc.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return f" in {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame is not None else ""
