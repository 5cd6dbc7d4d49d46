"""The command `worker`: a process that executes due runs until it gets a signal to end."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from spine_async._model.queue import Queue, RateLimit
from spine_async.cli.exit_code import ExitCode
from spine_async.cli.health import health_server
from spine_async.cli.interrupts import on_interrupt
from spine_async.cli.output import Output
from spine_async.cli.place import Place
from spine_async.cli.problem import CommandError
from spine_async.errors import StoreError
from spine_async.runner import WorkflowRunner

_STORE_LIMIT = 2.0  # seconds in which a ready worker reads its store
_LIMITS = {"concurrency": "concurrency", "per-process": "per_process", "per-key": "per_key"}

_log = logging.getLogger("spine_async")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The settings of a worker on the command line.

    Attributes:
        queues: The queues, or none for those of the application.
        settings: Settings of the config.
        health_port: Port of the health server; 0 chooses one, None means no server.
    """

    queues: Sequence[Queue] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    health_host: str = "127.0.0.1"
    health_port: int | None = None


async def work(output: Output, place: Place, options: WorkerOptions) -> int:
    """Execute due runs until SIGTERM or SIGINT.

    The first signal drains: running steps get `drain_timeout`. The second one cancels them at once. The third one ends
    the process.
    """
    runner = place.worker(options.queues, options.settings)
    state = _State(runner)
    async with on_interrupt(state.react), state.health(options):
        async with runner:
            _log.info("worker %d has started with %s", os.getpid(), _described(runner))
            await state.leaving.wait()
        _log.info("worker %d has ended", os.getpid())
    return ExitCode.COMPLETED


class _State:
    """Whether the worker works or drains."""

    def __init__(self, runner: WorkflowRunner) -> None:
        self._runner = runner
        self.leaving = anyio.Event()

    def react(self, count: int) -> None:
        """React to the signal with this number."""
        if count == 1:
            _log.info("worker %d drains: no further run begins, and running steps may end", os.getpid())
            self.leaving.set()
        elif count == 2:
            _log.warning("worker %d cancels the running steps; their runs continue elsewhere", os.getpid())
            self._runner.cut_drain_short()
        else:
            os._exit(ExitCode.INTERRUPTED)

    @asynccontextmanager
    async def health(self, options: WorkerOptions) -> AsyncGenerator[None, None]:
        """Serve the health of the worker inside the context, if that is asked for."""
        if options.health_port is None:
            yield
            return
        async with health_server(options.health_host, options.health_port, self._problem) as port:
            _log.info("health is served at http://%s:%d/readyz", options.health_host, port)
            yield

    async def _problem(self) -> str | None:
        """Why the worker is not ready, or None."""
        if self.leaving.is_set():
            return "draining"
        try:
            with anyio.fail_after(_STORE_LIMIT):
                await self._runner.list_runs(limit=1)
        except (StoreError, TimeoutError) as exc:
            return f"the store cannot be read: {type(exc).__name__}"
        return None


def parse_queue(text: str) -> Queue:
    """The queue in a text such as `mail` or `mail:concurrency=20,per-process=5,per-key=1,rate=100/60`.

    Raises:
        CommandError: The text is malformed.
        DefinitionError: The name or a limit is invalid.
    """
    name, _, given = text.partition(":")
    limits: dict[str, int] = {}
    rate: RateLimit | None = None
    for each in given.split(",") if given else ():
        option, _, value = each.partition("=")
        if option == "rate":
            rate = _rate(text, value)
        elif option in _LIMITS:
            limits[_LIMITS[option]] = _count(text, value)
        else:
            raise CommandError(
                f"--queue {text!r}: there is no limit {option!r}; the limits are {', '.join(_LIMITS)}, rate"
            )
    return Queue(name, rate=rate, **limits)


def _rate(text: str, value: str) -> RateLimit:
    runs, _, seconds = value.partition("/")
    try:
        return RateLimit(_count(text, runs), per=float(seconds or 1))
    except ValueError as exc:
        raise CommandError(f"--queue {text!r}: give a rate as runs/seconds, such as rate=100/60: {exc}") from None


def _count(text: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise CommandError(f"--queue {text!r}: {value!r} is no integer") from None


def _described(runner: WorkflowRunner) -> str:
    workflows = ", ".join(sorted(runner.workflows)) or "no workflows"
    queues = ", ".join(sorted(runner.queue_names))
    return f"workflows {workflows}; queues {queues}; up to {runner.config.worker_concurrency} runs at once"
