"""The context of a step: params, outputs of earlier steps, and identity of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self, TypeVar, TypeVarTuple, cast, overload

from pydantic import BaseModel

from spine_async._model.document import Document, JsonValue, encode, encode_object
from spine_async._model.document_view import DocumentView
from spine_async._model.layered import NO_ENTRIES, LayeredMap
from spine_async._model.once_request import OnceRequest
from spine_async._model.output_model import OutputModel
from spine_async._model.private_copy import is_flat, private_copy, private_members
from spine_async._model.progress import Progress
from spine_async._model.quality import QualityMetrics
from spine_async._model.step_failure import StepFailure
from spine_async.errors import DefinitionError

DRY_RUN_PARAM = "__dry_run__"
"""Param that is True in a dry run. Source: `docs/concepts.md`, "Dry run"."""

ModelT = TypeVar("ModelT", bound=BaseModel)
DefaultT = TypeVar("DefaultT")
ArgumentsT = TypeVarTuple("ArgumentsT")

_MISSING: Any = object()
_NO_MODELS: Mapping[str, OutputModel] = {}


class WorkflowContext:
    """An immutable view of a run. Each `with_…` method returns a new context without copying earlier outputs.

    Args:
        run_id: Id of the run, or "" outside of a run.
        workflow_name: Name of the workflow.
        params: Params by name; must have a strict JSON form.
        outputs: Outputs of finished steps by step name; must have a strict JSON form.
        quality: Quality metrics by step name.
        partition: Partition of the run, or None.
        metadata: Information that the runner adds, for instance `resumed`.
        started_at: When the run was started (aware, UTC), or None.

    Attributes:
        step_name: Name of the current step, or None outside of a step.
        attempt: Number of the current attempt, from 1, or 0 outside of a step.
        idempotency_key: Key that stays the same for all attempts and resumes of this step visit and differs between map
            items, or None outside of a step.

    Raises:
        SerializationError: A param or output has no strict JSON form.

    Example:
        >>> context = WorkflowContext(params={"symbol": "IBM"}).with_output("load", {"rows": 3})
        >>> context.get_param("symbol"), context.get_output("load", "rows")
        ('IBM', 3)
    """

    run_id: str
    workflow_name: str
    started_at: datetime | None
    step_name: str | None
    attempt: int
    idempotency_key: str | None
    _frame: object | None
    _partition: Mapping[str, object] | None
    _metadata: Mapping[str, object]
    _params: LayeredMap[Document]
    _outputs: LayeredMap[Document]
    _quality: LayeredMap[QualityMetrics]
    _models: Mapping[str, OutputModel]
    _failures: LayeredMap[StepFailure | None] = NO_ENTRIES  # of the class: nearly no context has one
    _seen_params: DocumentView | None
    _seen_outputs: DocumentView | None
    _seen_rest: dict[str, object] | None

    def __init__(  # noqa: PLR0917 - positional in the public interface
        self,
        run_id: str = "",
        workflow_name: str = "",
        params: Mapping[str, object] | None = None,
        outputs: Mapping[str, object] | None = None,
        quality: Mapping[str, QualityMetrics] | None = None,
        partition: Mapping[str, object] | None = None,
        metadata: Mapping[str, object] | None = None,
        started_at: datetime | None = None,
    ) -> None:
        self.__dict__.update(
            run_id=run_id,
            workflow_name=workflow_name,
            _partition=_frozen(partition) if partition is not None else None,
            _metadata=_frozen(metadata or {}),
            started_at=started_at,
            step_name=None,
            attempt=0,
            idempotency_key=None,
            _frame=None,
            _params=LayeredMap(encode_object(params)) if params else NO_ENTRIES,
            _outputs=LayeredMap(encode_object(outputs)) if outputs else NO_ENTRIES,
            _quality=LayeredMap(quality) if quality else NO_ENTRIES,
            _models=_NO_MODELS,
            _seen_params=None,
            _seen_outputs=None,
            _seen_rest=None,
        )

    @property
    def partition(self) -> Mapping[str, Any] | None:
        """Partition of the run, or None. Changing a value that was read here affects no other step."""
        return self._private("partition", self._partition) if self._partition is not None else None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Information that the runner adds, for instance `resumed`; a private copy, like `partition`."""
        return self._private("metadata", self._metadata)

    @property
    def params(self) -> Mapping[str, Any]:
        """Params by name. Changing a value that was read here affects no other step."""
        view = self._seen_params
        if view is None:
            view = self.__dict__["_seen_params"] = DocumentView(self._params, _NO_MODELS)
        return view

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Outputs of finished steps by step name; pydantic models for steps with an `output_model`."""
        view = self._seen_outputs
        if view is None:
            view = self.__dict__["_seen_outputs"] = DocumentView(self._outputs, self._models)
        return view

    @property
    def quality(self) -> Mapping[str, QualityMetrics]:
        """Quality metrics by step name; private copies, like `partition`."""
        seen = self._seen()
        if "quality" not in seen:
            seen["quality"] = MappingProxyType({step: _private_metrics(each) for step, each in self._quality.items()})
        return cast("Mapping[str, QualityMetrics]", seen["quality"])

    @property
    def cancel_reason(self) -> str | None:
        """Reason of the cancellation of this step, or None if it is not cancelled.

        One of `user`, `step_timeout`, `run_timeout`, `shutdown`, `parked`, `lease_lost`, `sibling_failed`,
        `sibling_done` and `cancelled` (the caller of `execute` or `resume` was cancelled, or middleware cancelled the
        attempt). A `def` handler may read it in its thread in order to end early.
        """
        reason = getattr(self._frame, "current_cancel_reason", None)
        return str(reason) if reason is not None else None

    @property
    def signal_token(self) -> str:
        """A name that a signal can be sent to instead of its own, so that only one visit of one step can take it.

        It belongs to the next visit of the first step in the list, from the current one on, that waits for a signal.
        In a map item this is a step of the same item: `process_all[17]/approval`. Put it into the request for an
        answer, for instance into the link of a mail: `await runner.signal(run_id, token, value)`.

        Raises:
            DefinitionError: No step of the same list waits for a signal from here on, or the context does not belong to
                a running step.
        """
        frame = self._frame
        if frame is None:
            problem = "signal_token can be read only from the context of a running step"
            raise DefinitionError(problem, workflow=self.workflow_name, step=self.step_name)
        return str(getattr(frame, "signal_token"))  # noqa: B009 - the frame is an object of the engine

    def emit(self, event_type: str, data: object = None) -> None:
        """Add an event to the run while the step is running; readers of `runner.events` see it within milliseconds.

        May be called in `async def` handlers and in threads. The event is committed at once if no commit of the run is
        under way, else with the next one. Its metadata are `{"execution": …, "attempt": …, "data": …}`: the number of
        the claim under which the run is executed, the attempt of the step, and the data. The events of an attempt that
        failed stay stored; `step_retrying`, or another `step_started` after a crash, tells readers to discard them.

        Args:
            event_type: Type of the event; none of the runner's own (`EventType`).
            data: A value with a strict JSON form.

        Raises:
            DefinitionError: The type is invalid, or the context does not belong to a running step.
            SerializationError: The data have no strict JSON form, or are larger than `max_value_bytes`.
            AttemptEndedError: The attempt of the step has ended.
            TooManyPendingEventsError: `max_pending_events` of the run are not stored yet; call `flush` now and then.
        """
        self._running("emit").emit(self.attempt, event_type, data)

    async def flush(self) -> None:
        """Wait until the events that the run has emitted so far are stored.

        A `def` handler calls it with `anyio.from_thread.run(context.flush)`.

        Raises:
            DefinitionError: The context does not belong to a running step.
            StoreError: The store failed; the events are stored with the next commit of the run that succeeds.
        """
        await self._running("flush").flush()

    async def once(
        self, name: str, call: Callable[[*ArgumentsT], object], *args: *ArgumentsT, key: object = None
    ) -> Any:
        """Call `call(*args)` and record what it returns, so that a later attempt of this step does not repeat the call.

        A later attempt is a retry, or the attempt after a resume or a crash, in any process. There `once` returns the
        recorded value, and `call` is not called. A call that raised is not recorded. If the process ends between the
        return of `call` and the commit of its value, `call` is called again.

        A call is identified by its name and by the JSON of its arguments, not by its position. So calls may run
        concurrently, and their order may differ between attempts. Equal calls of one attempt are counted: the second
        one is another call than the first. A call that raised is not counted, so you may repeat it.

        Args:
            name: What the call does.
            call: An `async def`, or a `def`, which runs in a worker thread.
            args: Its arguments. They need a strict JSON form, unless `key` is given.
            key: A JSON value that identifies the call in place of its arguments.

        Returns:
            The JSON form of what `call` returned, as later steps see the output of a step. It is committed by then.

        Raises:
            DefinitionError: The name is invalid, or the context does not belong to a running step.
            SerializationError: The arguments have no strict JSON form and there is no `key`, or the returned value has
                none or is larger than `max_value_bytes`.
            AttemptEndedError: The attempt of the step has ended.
            StoreError: The value could not be stored.

        Cancellation:
            Takes effect at once. If `call` had returned, its value is stored with the next commit of the run.

        Example:
            >>> async def pay(context, config):
            ...     receipt = await context.once("charge", charge_card, context.params["card"], 49.90)
            ...     await context.once("mail", send_receipt, receipt["id"])
        """
        return await self._running("once").once(self.attempt, OnceRequest(name, call, args, key))

    def once_in_thread(
        self, name: str, call: Callable[[*ArgumentsT], object], *args: *ArgumentsT, key: object = None
    ) -> Any:
        """`once` for a `def` handler: waits in its thread, and calls a plain `call` in this thread.

        Raises:
            DefinitionError: As in `once`, or it is called in the thread of the event loop.
            SerializationError: As in `once`.
            AttemptEndedError: As in `once`.
            StoreError: As in `once`.
        """
        return self._running("once_in_thread").once_in_thread(self.attempt, OnceRequest(name, call, args, key))

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Report how far the step has come. The latest report counts.

        May be called in `async def` handlers and in threads, as often as you like: a report takes about a microsecond.
        While the step is running, the latest one is stored at most five times a second, and once more when the attempt
        ends, as an event `step_progress`.

        Args:
            done: How much is done, in a unit of your choice.
            total: How much there is to do, or None if that is not known.
            message: A text for people.

        Raises:
            DefinitionError: An argument is invalid, or the context does not belong to a running step.
            AttemptEndedError: The attempt of the step has ended.
        """
        self._running("progress").report(self.attempt, Progress(done, total, message))

    @property
    def last_progress(self) -> Progress | None:
        """The latest progress of this visit of the step, or None.

        In a later attempt this is the last progress that an earlier one reported, also in another process after a
        crash. So a step can continue where the earlier attempt was.
        """
        progress: Progress | None = getattr(self._frame, "last_progress", None)
        return progress

    def _running(self, method: str) -> Any:
        """The running attempt, an object of the engine."""
        if self._frame is None:
            problem = f"{method} can be called only on the context of a running step"
            raise DefinitionError(problem, workflow=self.workflow_name, step=self.step_name)
        return self._frame

    @property
    def is_dry_run(self) -> bool:
        """Whether the run is a dry run."""
        return self.params.get(DRY_RUN_PARAM) is True

    @overload
    def get_param(self, key: str, default: Any = None) -> Any: ...

    @overload
    def get_param(self, key: str, *, model: type[ModelT]) -> ModelT: ...

    @overload
    def get_param(self, key: str, default: DefaultT, *, model: type[ModelT]) -> ModelT | DefaultT: ...

    def get_param(self, key: str, default: object = _MISSING, *, model: type[BaseModel] | None = None) -> object:
        """The param `key`.

        Args:
            key: Name of the param.
            default: Result if there is no such param; None if it is not given.
            model: Pydantic model to return the param as.

        Raises:
            KeyError: There is no such param, and `model` is given without a default.
            pydantic.ValidationError: The param does not fit the model.
        """
        return _as_model(self.params.get(key, _MISSING), default, model, f"there is no param {key!r}")

    def has_output(self, step: str) -> bool:
        """Whether the last visit of `step` that completed or failed has an output."""
        return step in self._outputs

    @overload
    def get_output(self, step: str, key: str | None = None, default: Any = None) -> Any: ...

    @overload
    def get_output(self, step: str, key: str | None = None, *, model: type[ModelT]) -> ModelT: ...

    @overload
    def get_output(
        self, step: str, key: str | None = None, *, default: DefaultT, model: type[ModelT]
    ) -> ModelT | DefaultT: ...

    def get_output(
        self, step: str, key: str | None = None, default: object = _MISSING, *, model: type[BaseModel] | None = None
    ) -> object:
        """The output of `step`, or its member `key`.

        Args:
            step: Name of a finished step.
            key: Key of a mapping, or attribute of a model; None means the whole output.
            default: Result if the output or the member does not exist; None if it is not given.
            model: Pydantic model to return the output as. If it is the step's `output_model`, nothing is converted.

        Raises:
            KeyError: The output or the member does not exist, and `model` is given without a default.
            pydantic.ValidationError: The output does not fit the model.
        """
        found = self._output(step, key) if step in self._outputs else _MISSING
        return _as_model(found, default, model, f"there is no output {step!r}" + (f", {key!r}" if key else ""))

    def _output(self, step: str, key: str | None) -> object:
        output: object = self.outputs[step]
        if key is None:
            return output
        if isinstance(output, Mapping):
            return output.get(key, _MISSING)
        return getattr(output, key, _MISSING) if isinstance(output, BaseModel) else _MISSING

    def get_error(self, step: str) -> dict[str, Any] | None:
        """The failure of the last visit of `step`, if the run continued after it: by `catch` or `on_error="continue"`.

        Returns:
            `{"error": text, "category": error category, "attempts": number of attempts}`; None if the last visit did
            not fail, or if there was none.
        """
        failure = self._failures.get(step)
        return failure.as_dict() if failure is not None else None

    def get_quality(self, step: str) -> QualityMetrics | None:
        """Quality metrics that `step` reported, or None."""
        return self.quality.get(step) if step in self._quality else None

    def with_params(self, updates: Mapping[str, object]) -> Self:
        """A context whose params are overridden by `updates`."""
        return self._with_documents(encode_object(_as_updates("params", updates)))

    def with_output(self, step: str, output: object) -> Self:
        """A context with this output of `step`."""
        return self._with_documents(outputs={_as_step_name(step): encode(output)})

    def with_quality(self, step: str, quality: QualityMetrics) -> Self:
        """A context with these quality metrics of `step`."""
        if not isinstance(quality, QualityMetrics):
            raise TypeError(f"quality is of type {type(quality).__name__}; it must be a QualityMetrics")
        return self._changed(_quality=self._quality.adding({_as_step_name(step): quality}), _seen_rest=None)

    def with_metadata(self, updates: Mapping[str, object]) -> Self:
        """A context whose metadata are overridden by `updates`."""
        updates = _as_updates("metadata", updates)
        return self._changed(_metadata=_frozen({**self.metadata, **updates}), _seen_rest=None)

    def to_dict(self) -> dict[str, JsonValue]:
        """The context as JSON values, as `from_dict` reads them.

        Returns:
            `{"run_id": str, "workflow_name": str, "params": {name: value}, "outputs": {step: value}, "quality": {step:
            {...}}, "partition": {...} | None, "metadata": {...}, "started_at": ISO 8601 text | None}`.
        """
        return {
            "run_id": self.run_id,
            "workflow_name": self.workflow_name,
            "params": {key: each.value() for key, each in self._params.items()},
            "outputs": {step: each.value() for step, each in self._outputs.items()},
            "quality": {step: encode(metrics).value() for step, metrics in self._quality.items()},
            "partition": encode(self._partition).value(),
            "metadata": encode(self._metadata).value(),
            "started_at": self.started_at.isoformat() if self.started_at else None,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> Self:
        """The context from the result of `to_dict`.

        Raises:
            ValueError: `stored` does not have the shape that `to_dict` returns.
        """
        try:
            stored = _as_mapping(stored)
            return cls(
                run_id=str(stored.get("run_id") or ""),
                workflow_name=str(stored.get("workflow_name") or ""),
                params=_as_mapping(stored.get("params")),
                outputs=_as_mapping(stored.get("outputs")),
                quality={step: QualityMetrics(**each) for step, each in _as_mapping(stored.get("quality")).items()},  # type: ignore[arg-type]
                partition=_as_mapping(stored["partition"]) if stored.get("partition") is not None else None,
                metadata=_as_mapping(stored.get("metadata")),
                started_at=datetime.fromisoformat(str(stored["started_at"])) if stored.get("started_at") else None,
            )
        except TypeError as exc:
            raise ValueError(f"this is not a context written by to_dict: {exc}") from exc

    def _for_attempt(self, step_name: str, attempt: int, idempotency_key: str, frame: object) -> Self:
        """The context of one attempt of a step. It has views of its own, so that attempts share no decoded values."""
        context = self._changed()
        attributes = context.__dict__  # set one by one, because each attempt has its own context
        attributes["step_name"] = step_name
        attributes["attempt"] = attempt
        attributes["idempotency_key"] = idempotency_key
        attributes["_frame"] = frame
        attributes["_seen_params"] = attributes["_seen_outputs"] = attributes["_seen_rest"] = None
        return context

    def _for_item(self, params: Mapping[str, Document]) -> Self:
        """The initial context of a map item: this one, with additional params."""
        added = self._params.adding(params)
        return self._changed(_params=added, _seen_params=None, _seen_outputs=None, _seen_rest=None)

    def _for_child(self, workflow_name: str, params: Mapping[str, Document], models: Mapping[str, OutputModel]) -> Self:
        """The initial context of a child workflow: without the outputs of this one, and with other params."""
        return self._changed(
            workflow_name=workflow_name or self.workflow_name,
            step_name=None,
            attempt=0,
            idempotency_key=None,
            _frame=None,
            _params=LayeredMap(params),
            _outputs=NO_ENTRIES,
            _quality=NO_ENTRIES,
            _failures=NO_ENTRIES,
            _models=models,
            _seen_params=None,
            _seen_outputs=None,
            _seen_rest=None,
        )

    def _with_documents(
        self,
        params: Mapping[str, Document] | None = None,
        outputs: Mapping[str, Document] | None = None,
    ) -> Self:
        """`with_params` and `with_output` for encoded values."""
        if params and outputs:
            return self._with_documents(params)._with_documents(outputs=outputs)
        if params:
            return self._changed(_params=self._params.adding(params), _seen_params=None)
        if outputs and self._failures is not NO_ENTRIES:
            failures = self._failures.adding(dict.fromkeys(outputs))
            return self._changed(_outputs=self._outputs.adding(outputs), _seen_outputs=None, _failures=failures)
        if outputs:
            return self._changed(_outputs=self._outputs.adding(outputs), _seen_outputs=None)
        return self

    def _with_failure(self, step: str, failure: StepFailure | None, *, has_output: bool = True) -> Self:
        """A context in which the last visit of `step` failed in this way, or did not fail.

        Args:
            step: Name of the step.
            failure: Its failure, or None.
            has_output: Whether the output that the context has for the step remains.
        """
        outputs = self._outputs if has_output else self._outputs.without(step)
        return self._changed(
            _failures=self._failures.adding({step: failure}), _outputs=outputs, _seen_outputs=None, _seen_rest=None
        )

    def _with_models(self, models: Mapping[str, OutputModel]) -> Self:
        """A context that decodes the outputs of these steps as these models, and other outputs as plain values."""
        return self._changed(_models=models, _seen_outputs=None)

    def _outside_steps(self) -> Self:
        """The context without the attributes of a step."""
        return self._changed(step_name=None, attempt=0, idempotency_key=None, _frame=None)

    def __getstate__(self) -> dict[str, object]:
        dropped = {"_frame": None, "_seen_params": None, "_seen_outputs": None, "_seen_rest": None}
        plain = {key: dict(each) for key, each in self.__dict__.items() if isinstance(each, MappingProxyType)}
        return {**self.__dict__, **plain, **dropped}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name in ("_partition", "_metadata"):
            mapping = cast("Mapping[str, object] | None", state[name])
            state[name] = MappingProxyType(mapping) if mapping is not None else None
        self.__dict__.update(state)

    def __repr__(self) -> str:
        at = f", step {self.step_name!r}" if self.step_name else ""
        return f"<WorkflowContext of run {self.run_id!r}{at}>"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a context is immutable; create a new one with with_params, with_output or with_metadata")

    def _seen(self) -> dict[str, object]:
        """Private copies that were read from this context."""
        seen = self._seen_rest
        if seen is None:
            seen = self.__dict__["_seen_rest"] = {}
        return seen

    def _private(self, name: str, shared: Mapping[str, object]) -> Mapping[str, object]:
        if is_flat(shared):
            return shared
        seen = self._seen()
        if name not in seen:
            seen[name] = private_copy(shared)
        return cast("Mapping[str, object]", seen[name])

    def _changed(self, **attributes: object) -> Self:
        """A copy with some attributes changed. It takes one union of dicts, because a run copies contexts often."""
        changed = object.__new__(type(self))
        object.__setattr__(changed, "__dict__", self.__dict__ | attributes)
        if type(self) is not WorkflowContext:  # attributes of a subclass may be outdated
            for name in changed.__dict__.keys() - WorkflowContext.__annotations__.keys():
                del changed.__dict__[name]
        return changed

    def __copy__(self) -> Self:
        return self._changed(_seen_params=None, _seen_outputs=None, _seen_rest=None)

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()


def _as_model(found: object, default: object, model: type[BaseModel] | None, problem: str) -> object:
    if found is _MISSING:
        if model is not None and default is _MISSING:
            raise KeyError(problem)
        return None if default is _MISSING else default
    if model is None or isinstance(found, model):
        return found
    return Document(encode(found).text).revive(model)


def _frozen(mapping: Mapping[str, object]) -> Mapping[str, object]:
    return MappingProxyType(private_members(mapping)) if mapping else _NOTHING


def _private_metrics(metrics: QualityMetrics) -> QualityMetrics:
    return replace(metrics) if metrics.custom_metrics else metrics  # the constructor copies the custom metrics


_NOTHING: Mapping[str, object] = MappingProxyType({})
"""The shared empty mapping."""


def _as_updates(what: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"the updates of {what} are of type {type(value).__name__}; they must be a mapping")
    return value


def _as_step_name(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"step is of type {type(value).__name__}; it must be the name of a step")
    return str.__str__(value)


def _as_mapping(value: object) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a mapping, found {type(value).__name__}")
    return value
