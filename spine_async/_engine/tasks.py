"""Tasks and futures of the event loop: the only file that uses asyncio directly.

A native `Task.cancel()` interrupts an anyio shield too, and a cancelled driver call may already have taken effect. So
work that must not be interrupted runs in its own task. The caller waits for this task. If a cancellation arrives
during the wait, it is raised after the task has ended.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import time
import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import anyio
import anyio.lowlevel

ValueT = TypeVar("ValueT")
ArgumentT = TypeVar("ArgumentT")

Future: TypeAlias = asyncio.Future
Task: TypeAlias = asyncio.Task
EventLoop: TypeAlias = asyncio.AbstractEventLoop
TimerHandle: TypeAlias = asyncio.TimerHandle
CANCELLATION = asyncio.CancelledError

STRAY_CANCELLATION = "the step awaited a task or future that other code had cancelled (CancelledError)"
"""Error text of a step that failed with a `CancelledError` although the step was not cancelled."""


_YIELD_EVERY = 0.001  # seconds


def is_scope_cancelled() -> bool:
    """Inside `except CANCELLATION`: whether an enclosing cancel scope was cancelled."""
    return anyio.current_effective_deadline() == -math.inf


def is_stray_cancellation() -> bool:
    """Inside `except CANCELLATION`: whether neither a scope nor this task was cancelled, only an awaited object."""
    return not is_scope_cancelled() and current_task().cancelling() == 0


def cancellation_count() -> int:
    """Number of native cancellations of the running task so far, for `is_cancelled_since`."""
    return current_task().cancelling()


def is_cancelled_since(count: int) -> bool:
    """Whether an enclosing scope was cancelled, or this task natively since `cancellation_count` returned `count`."""
    return is_scope_cancelled() or current_task().cancelling() > count


def drop_cancellations_since(count: int) -> None:
    """Undo native cancellations of the running task since `cancellation_count` returned `count`.

    `asyncio.TaskGroup` leaves one behind if a child fails while the group is being left (CPython before 3.13).
    """
    undo_cancellations(current_task().cancelling() - count)


def undo_cancellations(count: int) -> None:
    """Undo this number of native cancellations of the running task."""
    task = current_task()
    for _ in range(count):
        task.uncancel()


async def continue_cancellation() -> NoReturn:
    """Raise the cancellation that user code has replaced by a result or by another exception."""
    for _ in range(_MAX_REPEATED):
        try:
            await anyio.lowlevel.checkpoint()
        except asyncio.CancelledError as exc:
            # `asyncio.TaskGroup` repeats a cancellation natively (CPython 3.13); a scope catches only its own.
            if not is_scope_cancelled() or str(exc).startswith("Cancelled"):
                raise
        else:
            break
    raise asyncio.CancelledError  # a native cancellation is raised only once, and user code has caught it


_MAX_REPEATED = 10


def new_future() -> asyncio.Future[Any]:
    """A future of the running loop."""
    return asyncio.get_running_loop().create_future()


def current_task() -> asyncio.Task[Any]:
    """The running task."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("there is no running task")
    return task


def task_of_loop(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    """The task that `loop` executes right now; may be called from another thread."""
    return asyncio.current_task(loop)


running_loop = asyncio.get_running_loop
"""The running event loop."""


def spawn(work: Coroutine[object, object, ValueT], name: str) -> asyncio.Task[ValueT]:
    """Start `work` as a task that a caller's cancellation does not reach."""
    return asyncio.get_running_loop().create_task(work, name=name)


async def wait_any(*futures: asyncio.Future[Any]) -> None:
    """Wait until one of the futures is done.

    Cancellation:
        Ends the wait; the futures are not cancelled.
    """
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def wait_shielded(*futures: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until one of the futures is done, even if the caller is cancelled.

    Returns:
        A native cancellation that arrived during the wait, for the caller to raise.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not any(future.done() for future in futures):
            try:
                await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError as exc:
                cancelled = exc
    return cancelled


async def await_shielded(future: asyncio.Future[ValueT]) -> ValueT:
    """The result of `future`; waits for it even if the caller is cancelled.

    Cancellation:
        Raised once the future is done. The future itself is never cancelled by it.
    """
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.cancelled():
            await wait_shielded(future)
            future.exception()  # marks it as retrieved; the cancellation takes precedence
        raise


async def run_shielded(work: Coroutine[object, object, ValueT], name: str) -> ValueT:
    """Run `work` to its end in a task of its own; waits as `await_shielded` does."""
    return await await_shielded(spawn(work, name))


async def call_to_end(task: asyncio.Task[ValueT], on_cancel: Callable[[], None]) -> ValueT:
    """The result of `task`.

    Cancellation:
        `on_cancel` is called, and the cancellation is raised once the task has ended.
    """
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            on_cancel()
            await wait_shielded(task)
        mark_retrieved(task)
        raise


def mark_retrieved(task: asyncio.Task[Any]) -> None:
    """Mark the exception of a task that nobody awaits as retrieved, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()


async def wait_ended(task: asyncio.Task[Any]) -> None:
    """Wait until a task has ended, with whatever result.

    Cancellation:
        Raised once the task has ended.
    """
    cancelled = await wait_shielded(task)
    if cancelled is not None:
        raise cancelled


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel a background task of the runner and wait until it has ended, with whatever result.

    Ignores a cancellation of the caller: for tasks of the runner, which nobody but a loop that ends cancels.
    """
    task.cancel()
    await wait_shielded(task)


class Latch:
    """One-shot latch that many tasks await; it completes or fails once.

    Each waiter has its own future, so cancelling one does not affect the others.
    """

    __slots__ = ("_chained", "_error", "_error_callbacks", "_futures", "_is_set")

    def __init__(self) -> None:
        self._chained: Latch | None = None
        self._futures: list[asyncio.Future[None]] = []
        self._error_callbacks: tuple[Callable[[BaseException], None], ...] = ()
        self._error: BaseException | None = None
        self._is_set = False

    @property
    def is_set(self) -> bool:
        """Whether it has completed or failed."""
        return self._is_set

    @property
    def error(self) -> BaseException | None:
        """The error with which it failed, or None."""
        return self._error

    async def wait(self) -> None:
        """Wait until it is set; raises the error it failed with.

        Does not check for a cancellation if it is set already.

        Cancellation:
            Raised once it is set, unless it failed: the failure takes precedence.
        """
        try:
            await self.future()
        except asyncio.CancelledError:
            await self.wait_shielded()
            if self._error is None:
                raise
        if self._error is not None:
            raise self._error

    async def wait_shielded(self) -> None:
        """Wait until it is set, even if the caller is cancelled; never raises."""
        with anyio.CancelScope(shield=True):
            while not self._is_set:
                with suppress(asyncio.CancelledError):
                    await self.future()

    def future(self) -> asyncio.Future[None]:
        """A future for one waiter, done when the latch is set. Cancelling it ends only that waiter's wait."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._is_set:
            future.set_result(None)
        else:
            self._futures.append(future)
        return future

    def set(self, error: BaseException | None = None) -> None:
        """Complete, or fail with `error`, and resume all waiters; calls after the first have no effect."""
        resolve(self.release(error))

    def release(self, error: BaseException | None = None) -> list[asyncio.Future[None]]:
        """Complete, or fail with `error`; returns the waiters' futures, which the caller must `resolve`."""
        if self._is_set:
            return []
        self._is_set, self._error = True, error
        if error is not None:
            for callback in self._error_callbacks:
                callback(error)
        futures, self._futures = self._futures, []
        if self._chained is not None:
            futures += self._chained.release(error)
        return futures

    def chain(self, other: Latch) -> None:
        """Set `other` too when this latch is set, with the same error. A latch that is not set has at most one."""
        self._chained = other

    def callback(self, future: asyncio.Future[Any]) -> None:
        """`set`, in the form of a future's done callback."""
        self.set()

    def add_error_callback(self, callback: Callable[[BaseException], None]) -> None:
        """Call `callback` with the error if the latch fails, at once if it has failed already."""
        if self._error is not None:
            callback(self._error)
        elif not self._is_set:
            self._error_callbacks = (*self._error_callbacks, callback)


def resolve(futures: Iterable[asyncio.Future[None]]) -> None:
    """Set the result of each future, except those whose waiter was cancelled."""
    for future in futures:
        if not future.done():
            future.set_result(None)


def call_later(seconds: float, callback: Callable[..., object], *arguments: object) -> None:
    """Call `callback` in the running loop after `seconds`."""
    asyncio.get_running_loop().call_later(seconds, callback, *arguments)


def is_in_loop() -> bool:
    """Whether an event loop runs in this thread, so that the thread must not wait."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def call_in_loop(loop: EventLoop, callback: Callable[..., object], *arguments: object) -> bool:
    """Let a loop, which may be that of another thread, call `callback` soon; returns whether the loop is open."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        return False
    return True


def run_in_loop(loop: EventLoop, work: Coroutine[Any, Any, ValueT], ended: Exception) -> ValueT:
    """The result of `work`, which runs in the loop of another thread; this thread waits for it.

    Raises:
        Exception: `ended`, if the loop is closed, or ends before the work does.
    """
    try:
        return asyncio.run_coroutine_threadsafe(work, loop).result()
    except RuntimeError:
        if not loop.is_closed():
            raise
        work.close()
        raise ended from None
    except concurrent.futures.CancelledError:
        raise ended from None


async def yield_to_loop() -> None:
    """Let all other ready tasks run once; for tasks that no cancel scope encloses."""
    await asyncio.sleep(0)


class PeriodicYield:
    """Yields to the event loop if it has not done so for a millisecond; for work that may never suspend."""

    def __init__(self) -> None:
        self._yielded_mono = 0.0

    async def __call__(self) -> None:
        now = time.monotonic()
        if now - self._yielded_mono >= _YIELD_EVERY:
            self._yielded_mono = now
            await anyio.lowlevel.checkpoint()


async def retry_if_cancelled(call: Callable[[ArgumentT], Coroutine[Any, Any, ValueT]], argument: ArgumentT) -> ValueT:
    """The result of `call(argument)`; if a loop that is shutting down cancels it, it is called once more.

    Only for idempotent calls. The result is delivered as `ensure_suspends` does.
    """
    try:
        return await ensure_suspends(call(argument))
    except asyncio.CancelledError:
        return await ensure_suspends(call(argument))


@types.coroutine
def ensure_suspends(work: Coroutine[Any, Any, ValueT]) -> Generator[Any, Any, ValueT]:
    """The result of `work`, delivered in a later iteration of the event loop, even if `work` never suspends.

    A cancel scope looks for waiting tasks once per iteration. Tasks that wait for this result are then found waiting.
    """
    try:
        awaited = work.send(None)
    except StopIteration as stop:
        yield  # one iteration of the event loop
        return cast("ValueT", stop.value)
    while True:
        try:
            yield awaited
        except GeneratorExit:
            work.close()
            raise
        except BaseException as exc:  # noqa: BLE001 - the work decides
            try:
                awaited = work.throw(exc)
            except StopIteration as stop:
                return cast("ValueT", stop.value)
        else:
            return (yield from work.__await__())
