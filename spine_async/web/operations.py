"""The operations behind the routes: each of them once, for every framework."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import anyio
from pydantic_core import to_json

from spine_async._model.history import Event, RunRecord
from spine_async._model.workflow import Workflow
from spine_async.errors import DefinitionError, RunConflictError, SpineError, StoreCapabilityError
from spine_async.handle import RunHandle
from spine_async.runner import WorkflowRunner
from spine_async.web import problems, sse
from spine_async.web.access import Action, Authorize, check_authorize, checked_principal
from spine_async.web.documents import event_document, run_document, workflow_document
from spine_async.web.exchange import WebRequest, WebResponse, derived_id, quoted_segment
from spine_async.web.parameters import (
    EventsQuery,
    ResumeBody,
    RunsQuery,
    SignalBody,
    StartBody,
    StartQuery,
    StopBody,
    WaitQuery,
)
from spine_async.web.problems import Problem, ProblemError
from spine_async.web.shutdown import ShutdownNotice
from spine_async.web.sse import EventStream

MAX_BODY_BYTES = 1024 * 1024
_log = logging.getLogger("spine_async")


class RunOperations:
    """Serves the runs of one runner.

    Args:
        runner: The runner; it may be entered later.
        authorize: Decides who may do what.
        max_body_bytes: Largest body of a request.
        heartbeat: Seconds between two comments of an event stream.

    Attributes:
        notice: Tells open requests that the server is about to stop.
    """

    def __init__(
        self,
        runner: WorkflowRunner,
        authorize: Authorize,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        heartbeat: float = sse.HEARTBEAT,
    ) -> None:
        if not isinstance(runner, WorkflowRunner):
            raise DefinitionError(f"runner is of type {type(runner).__name__}; it must be a WorkflowRunner")
        check_authorize(authorize)
        self._runner = runner
        self._authorize = authorize
        self._max_body_bytes = max_body_bytes
        self._heartbeat = heartbeat
        self.notice = ShutdownNotice()

    async def permit(self, request: WebRequest, action: Action, run_id: str | None) -> str:
        """The principal of the request.

        Raises:
            ProblemError: The caller may not do this.
        """
        principal = checked_principal(await self._authorize(request.native, action, run_id))
        if principal is None:
            raise ProblemError(problems.refused(action, has_credentials=request.has_credentials))
        return principal

    async def list_workflows(self, request: WebRequest, principal: str) -> WebResponse:
        """The workflows that can be started."""
        known = sorted(self._runner.workflows.items())
        return WebResponse.document(200, {"workflows": [workflow_document(each) for _, each in known]})

    async def start_run(self, request: WebRequest, principal: str) -> WebResponse:
        """Start a run, or put it into a queue; with `wait`, answer with its result if it ends in that time."""
        workflow = self._workflow(request.path["name"])
        self._check_stores()
        query = request.parsed_query(StartQuery)
        body = await request.parsed_body(StartBody, self._max_body_bytes)
        key = request.idempotency_key
        run_id = str(uuid.uuid4()) if key is None else derived_id(principal, workflow.name, key)
        try:
            handle = await self._started(workflow, run_id, query, body)
        except RunConflictError:
            if key is None:
                raise
            raise ProblemError(_reused_key(workflow)) from None
        base = request.raw_path.rsplit("/", 3)[0]
        if query.wait:
            await self._wait_for(handle, query.wait)
        return await self._run_response(request, handle, base, waited=query.wait is not None)

    async def list_runs(self, request: WebRequest, principal: str) -> WebResponse:
        """A page of runs, without those that the caller may not read."""
        query = request.parsed_query(RunsQuery)
        try:
            records = await self._runner.list_runs(**query.model_dump())
        except (DefinitionError, ValueError) as exc:
            raise ProblemError(problems.invalid_request(str(exc))) from None
        # A partition is a value: who may not see it may not guess it either.
        actions: tuple[Action, ...] = ("read_run",) if query.partition is None else ("read_run", "read_values")
        shown = [each for each in records if await self._may_all(request, actions, each.run_id)]
        documents = [await self._document(request, each, asks=query.with_params) for each in shown]
        has_more = len(records) == query.limit
        return WebResponse.document(
            200, {"runs": documents, "next_cursor": records[-1].cursor if has_more and records else None}
        )

    async def read_run(self, request: WebRequest, principal: str) -> WebResponse:
        """One run; with `wait`, once it has ended or the time is over."""
        query = request.parsed_query(WaitQuery)
        handle = self._runner.handle(request.path["run_id"])
        if query.wait:
            await self._wait_for(handle, query.wait)
        return WebResponse.document(200, await self._document(request, await handle.record()))

    async def read_events(self, request: WebRequest, principal: str) -> WebResponse:
        """The events of a run: as a stream that follows the run to its end, or a page of them as a document."""
        query = request.parsed_query(EventsQuery)
        handle = self._runner.handle(request.path["run_id"])
        status = await handle.status()  # raises for a run that is not stored, before a stream begins
        shows_values = await self._may(request, "read_values", handle.run_id)
        if _prefers_json(request.header("accept")):
            return await _event_page(handle, query, shows_values=shows_values)
        after, last_id = query.after, request.header("last-event-id")
        if last_id:
            after = _last_event_id(last_id)
            if status.is_final and not await _has_events(handle, after):
                return WebResponse(204)  # a browser does not connect again
        messages = _messages(handle, after, shows_values=shows_values)
        return WebResponse(200, stream=EventStream(messages, self.notice, heartbeat=self._heartbeat))

    async def send_signal(self, request: WebRequest, principal: str) -> WebResponse:
        """Store a signal for a run."""
        self._check_stores()
        body = await request.parsed_body(SignalBody, self._max_body_bytes)
        run_id, key = request.path["run_id"], request.idempotency_key
        token = derived_id(principal, run_id, key) if key is not None else None
        await self._runner.signal(run_id, request.path["name"], body.value, idempotency_key=token)
        return WebResponse(204)

    async def stop_run(self, request: WebRequest, principal: str) -> WebResponse:
        """Stop a run, wherever it is executed."""
        body = await request.parsed_body(StopBody, self._max_body_bytes)
        run_id = request.path["run_id"]
        was_under_way = await self._runner.stop(run_id, body.reason, compensate=body.compensate)
        return WebResponse.document(200, {"run_id": run_id, "was_under_way": was_under_way})

    async def resume_run(self, request: WebRequest, principal: str) -> WebResponse:
        """Continue a run that failed or was stopped, in the background."""
        body = await request.parsed_body(ResumeBody, self._max_body_bytes)
        handle = await self._runner.resume_in_background(request.path["run_id"], params_override=body.params)
        return await self._run_response(request, handle, request.raw_path.rsplit("/", 3)[0], waited=False)

    async def delete_run(self, request: WebRequest, principal: str) -> WebResponse:
        """Delete a run that has ended."""
        await self._runner.delete_run(request.path["run_id"])
        return WebResponse(204)

    async def _started(self, workflow: Workflow, run_id: str, query: StartQuery, body: StartBody) -> RunHandle:
        if query.queue is None:
            if query.key is not None or query.priority is not None or query.delay is not None:
                raise ProblemError(problems.invalid_request("key, priority and delay need a queue; add queue=default"))
            return await self._runner.start(workflow, params=body.params, partition=body.partition, run_id=run_id)
        try:
            return await self._runner.enqueue(
                workflow,
                params=body.params,
                partition=body.partition,
                run_id=run_id,
                queue=query.queue,
                key=query.key,
                priority=query.priority or 0,
                delay=query.delay,
            )
        except StoreCapabilityError as exc:
            way_out = "leave out the queue, so that this server executes the run, or use a database"
            raise ProblemError(problems.unsupported(f"{exc.store} {exc.problem}; {way_out}")) from None
        except DefinitionError as exc:
            if type(exc) is not DefinitionError:
                raise
            raise ProblemError(problems.invalid_request(exc.problem)) from None

    async def _run_response(self, request: WebRequest, handle: RunHandle, base: str, *, waited: bool) -> WebResponse:
        """202 with a run that was started; 200 if the request has waited for its end, and it has ended."""
        record = await handle.record()
        status = 200 if waited and record.status.is_final else 202
        headers = {"Location": f"{base}/runs/{quoted_segment(handle.run_id)}"}
        return WebResponse.document(status, await self._document(request, record), headers)

    async def _wait_for(self, handle: RunHandle, seconds: float) -> None:
        """Wait for the end of the run, at most so long, and not beyond a shutdown of the server."""
        failure: SpineError | None = None
        with self.notice.listening(), anyio.move_on_after(seconds):
            async with anyio.create_task_group() as tasks:

                async def give_up() -> None:
                    await self.notice.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(give_up)
                try:
                    await handle.result()
                except SpineError as exc:
                    failure = exc
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _may(self, request: WebRequest, action: Action, run_id: str) -> bool:
        return checked_principal(await self._authorize(request.native, action, run_id)) is not None

    async def _may_all(self, request: WebRequest, actions: Iterable[Action], run_id: str) -> bool:
        for action in actions:
            if not await self._may(request, action, run_id):
                return False
        return True

    async def _document(self, request: WebRequest, record: RunRecord, *, asks: bool = True) -> dict[str, object]:
        """The document of a run; `asks` is whether the request asks for values at all."""
        shows_values = asks and await self._may(request, "read_values", record.run_id)
        return run_document(record, shows_values=shows_values)

    def _check_stores(self) -> None:
        """Check that the runner stores its runs. A run that is not stored could not be read by a later request."""
        config = self._runner.config
        if config.dry_run or not config.checkpoint_enabled:
            raise ProblemError(problems.unsupported("the runner of this server stores no runs; enable its checkpoints"))

    def _workflow(self, name: str) -> Workflow:
        workflow = self._runner.workflows.get(name)
        if workflow is None:
            raise ProblemError(problems.workflow_not_found(name))
        return workflow


async def _event_page(handle: RunHandle, query: EventsQuery, *, shows_values: bool) -> WebResponse:
    page: list[dict[str, object]] = []
    last = query.after
    async with aclosing(handle.events(after=query.after)) as events:
        async for event in events:
            page.append(event_document(event, shows_values=shows_values))
            last = event.seq
            if len(page) == query.limit:
                break
    return WebResponse.document(200, {"events": page, "next_after": last})


async def _has_events(handle: RunHandle, after: int) -> bool:
    async with aclosing(handle.events(after=after)) as events:
        return await anext(events, None) is not None


async def _messages(handle: RunHandle, after: int, *, shows_values: bool) -> AsyncGenerator[bytes, None]:
    """The events of a run as messages, and a message `end` with its status when it has ended."""
    async with aclosing(handle.events(after=after, follow=True)) as events:
        async for event in events:
            yield _message(event, shows_values=shows_values)
    status = await handle.status()
    if status.is_final:  # else it was resumed meanwhile; the client connects again
        yield sse.message(to_json({"run_id": handle.run_id, "status": status}).decode(), event="end")


def _message(event: Event, *, shows_values: bool) -> bytes:
    document = to_json(event_document(event, shows_values=shows_values)).decode()
    return sse.message(document, event_id=event.seq)


def _last_event_id(text: str) -> int:
    try:
        return sse.parse_event_id(text)
    except ValueError as exc:
        raise ProblemError(problems.invalid_request(str(exc))) from None


def _prefers_json(accept: str | None) -> bool:
    """Whether an `Accept` header wants a JSON document rather than a stream, which is the default."""
    weights = {"application/json": 0.0, sse.MEDIA_TYPE: 0.0}
    for kind, weight in _accepted(accept or ""):
        if kind in weights:
            weights[kind] = weight
    return weights["application/json"] > weights[sse.MEDIA_TYPE]


def _accepted(accept: str) -> Iterable[tuple[str, float]]:
    for part in accept.lower().split(","):
        kind, *options = (each.strip() for each in part.split(";"))
        weight = next((each[2:] for each in options if each.startswith("q=")), "1")
        try:
            yield kind, float(weight)
        except ValueError:
            continue


def _reused_key(workflow: Workflow) -> Problem:
    detail = f"this Idempotency-Key has started a run of {workflow.name!r} with other params; use another key"
    return Problem(422, "idempotency-key-reused", "The key belongs to another request", detail)
