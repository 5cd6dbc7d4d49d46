"""Work that belongs to the runner: it goes on when its caller is cancelled.

This is the one place that speaks to asyncio itself. A native `Task.cancel()` pierces an anyio shield, and a cancelled
driver call is not a call that did nothing; so whatever writes runs in a task of its own, and the caller waits for it
in a way that remembers a cancellation and passes it on afterwards.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import anyio

ValueT = TypeVar("ValueT")

Promise: TypeAlias = asyncio.Future
Task: TypeAlias = asyncio.Task
CANCELLATION = asyncio.CancelledError


def is_asked_for() -> bool:
    """Inside `except CANCELLATION`: whether a scope around us was cancelled."""
    return anyio.current_effective_deadline() == -math.inf


def is_foreign() -> bool:
    """Inside `except CANCELLATION`: whether nobody cancelled us, but something that was awaited here."""
    return not is_asked_for() and current_task().cancelling() == 0


FOREIGN = "a CancelledError came out of something the step awaited, which somebody else had cancelled"


def new_promise() -> asyncio.Future[Any]:
    """A future of the running loop."""
    return asyncio.get_running_loop().create_future()


def current_task() -> asyncio.Task[Any]:
    """The task that asks."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("there is no running task")
    return task


def blocking_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    """The task that `loop` is executing right now; may be asked from another thread."""
    return asyncio.current_task(loop)


def running_loop() -> asyncio.AbstractEventLoop:
    """The loop of the task that asks."""
    return asyncio.get_running_loop()


def spawn(work: Coroutine[object, object, ValueT], name: str) -> asyncio.Task[ValueT]:
    """Start `work` as a task that no caller's cancellation reaches."""
    return asyncio.get_running_loop().create_task(work, name=name)


async def attend_either(*promises: asyncio.Future[Any]) -> None:
    """Wait until one of the promises is done.

    Cancellation:
        Ends the waiting and leaves the promises alone.
    """
    await asyncio.wait(promises, return_when=asyncio.FIRST_COMPLETED)


async def attend(*promises: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until one of the promises is done, whatever happens to the caller.

    Returns:
        A native cancellation that came meanwhile, to be passed on.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not any(promise.done() for promise in promises):
            try:
                await asyncio.wait(promises, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError as exc:
                cancelled = exc
    return cancelled


async def outlast(promise: asyncio.Future[ValueT]) -> ValueT:
    """Wait for `promise` until it is done, whatever happens to the caller.

    Cancellation:
        Is remembered and raised once the promise is done; the promise itself is never cancelled by it.
    """
    try:
        return await asyncio.shield(promise)
    except asyncio.CancelledError:
        if not promise.cancelled():
            await attend(promise)
            promise.exception()  # counts as seen; the cancellation outranks it
        raise


class Gate:
    """Something that many wait for, whatever happens to them, and that is passed or broken once for all of them.

    Each waits on a promise of its own, which a cancellation may take away without harm to the others; so nothing has to
    stand between the promise and the one who waits.
    """

    __slots__ = ("_error", "_is_over", "_listeners", "_promises")

    def __init__(self) -> None:
        self._promises: list[asyncio.Future[None]] = []
        self._listeners: tuple[Callable[[BaseException], None], ...] = ()
        self._error: BaseException | None = None
        self._is_over = False

    async def wait(self) -> None:
        """Wait until it is over; raises what it was broken with.

        Does not look for a cancellation where it is over already.

        Cancellation:
            Is remembered and raised once it is over, unless it was broken: that must not be overlooked.
        """
        try:
            await self.promise()
        except asyncio.CancelledError:
            await self.attend()
            if self._error is None:
                raise
        if self._error is not None:
            raise self._error

    async def attend(self) -> None:
        """Wait until it is over, whatever happens to the caller."""
        with anyio.CancelScope(shield=True):
            while not self._is_over:
                with suppress(asyncio.CancelledError):
                    await self.promise()

    @property
    def is_over(self) -> bool:
        """Whether it has been passed or broken."""
        return self._is_over

    def end(self, error: BaseException | None = None) -> None:
        """It is over: wake all who wait; only the first time counts."""
        wake(self.close(error))

    def close(self, error: BaseException | None = None) -> list[asyncio.Future[None]]:
        """It is over; gives the promises of those who wait, who must be woken. Only the first time counts."""
        if self._is_over:
            return []
        self._is_over, self._error = True, error
        if error is not None:
            for tell in self._listeners:
                tell(error)
        waiting, self._promises = self._promises, []
        return waiting

    def pass_on(self, promise: asyncio.Future[Any]) -> None:
        """`end`, as a promise's callback."""
        self.end()

    def when_broken(self, tell: Callable[[BaseException], None]) -> None:
        """Have `tell` called with what it is broken with, should it be."""
        if self._error is not None:
            tell(self._error)
        elif not self._is_over:
            self._listeners = (*self._listeners, tell)

    def promise(self) -> asyncio.Future[None]:
        """A promise of the caller's own, done when it is over; for a waiting that a cancellation ends."""
        promise: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._is_over:
            promise.set_result(None)
        else:
            self._promises.append(promise)
        return promise


def wake(waiting: Iterable[asyncio.Future[None]]) -> None:
    """Keep the promises, but for those that a cancellation has taken away."""
    for promise in waiting:
        if not promise.done():
            promise.set_result(None)


async def next_turn() -> None:
    """Let everybody else have one turn; for tasks that no scope is around."""
    await asyncio.sleep(0)


async def in_another_turn(work: Coroutine[Any, Any, ValueT]) -> ValueT:
    """What the work gives, in a later turn of the event loop than this one, even if it never waits.

    Those who wait for it since before are found waiting by a cancellation, which looks for them once in each turn.
    """
    watched = _Watched(work)
    result = await watched
    if not watched.has_waited:
        await next_turn()
    return result


class _Watched(Generator[Any, Any, ValueT]):
    """An awaitable that remembers whether the work in it has ever waited."""

    __slots__ = ("_work", "has_waited")

    def __init__(self, work: Coroutine[Any, Any, ValueT]) -> None:
        self._work = work
        self.has_waited = False

    def __await__(self) -> Generator[Any, Any, ValueT]:
        return self

    def __next__(self) -> Any:
        waits_for = self._work.send(None)  # raises StopIteration with the result
        self.has_waited = True
        return waits_for

    def send(self, value: Any) -> Any:
        waits_for = self._work.send(value)
        self.has_waited = True
        return waits_for

    def throw(self, *error: Any) -> Any:
        waits_for = self._work.throw(*error)
        self.has_waited = True
        return waits_for


async def run_through(work: Coroutine[object, object, ValueT], name: str) -> ValueT:
    """Run `work` to its end in a task of its own, as `outlast` waits."""
    return await outlast(spawn(work, name))


async def insist(call: Callable[[], Awaitable[ValueT]]) -> ValueT:
    """The call's result; one that a loop being torn down cancels in the middle is made once more.

    Only for calls that may be repeated: whoever takes them recognises what it has done before.
    """
    try:
        return await call()
    except asyncio.CancelledError:
        return await call()


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task of our own and wait until it is over, however that comes out."""
    task.cancel()
    await attend(task)
