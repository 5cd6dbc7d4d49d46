"""A store that raises only errors of this library, whatever the wrapped store raises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sized
from pathlib import Path
from typing import Any, cast

from spine_async._engine.commit.isolation import store_error
from spine_async.errors import SpineError, StoreError
from spine_async.ports import RunStore

_BATCHES = frozenset({"create", "commit", "renew"})
"""Methods that return one answer for each element of their first argument."""


def guarded(store: RunStore) -> RunStore:
    """The store, with every error that is none of this library raised as a `StoreError`, whose cause is the error."""
    return cast("RunStore", _GuardedStore(store))


class _GuardedStore:
    """Forwards all attributes; a method is wrapped when it is first used."""

    def __init__(self, store: RunStore) -> None:
        self._store = store

    @property
    def location(self) -> str:
        """Where the runs are stored."""
        return str(getattr(self._store, "location", type(self._store).__name__))

    def __getattr__(self, name: str) -> Any:
        if name == "open" or not hasattr(RunStore, name):  # a foreign error of `open` prevents entering the runner
            return getattr(self._store, name)
        method = self.__dict__[name] = self._guarded_method(name)
        return method

    def _guarded_method(self, name: str) -> Callable[..., Awaitable[Any]]:
        call, store = f"{type(self._store).__name__}.{name}", self._store
        is_batch = name in _BATCHES

        async def method(*arguments: Any, **named: Any) -> Any:
            try:
                answer = await getattr(store, name)(*arguments, **named)
                if is_batch:
                    _check_count(call, arguments[0], answer)
            except SpineError:
                raise
            except Exception as exc:
                raise store_error(exc, f"{call} raised an error{_place(exc)}") from exc
            return answer

        return method


def _check_count(call: str, given: Sized, answers: Sized) -> None:
    if len(answers) != len(given):
        raise StoreError(f"{call} gave {len(answers)} answers for {len(given)} records")


def _place(exc: Exception) -> str:
    """Where the exception was raised: the innermost frame."""
    frame = exc.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return f" in {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame is not None else ""
