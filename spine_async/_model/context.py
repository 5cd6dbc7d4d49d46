"""What a step sees of its run: params, earlier outputs, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Self

from pydantic import BaseModel

from spine_async._model.document import Document, JsonValue, encode, encode_object
from spine_async._model.document_view import DocumentView
from spine_async._model.layered import NO_ENTRIES, LayeredMap
from spine_async._model.quality import QualityMetrics

DRY_RUN_PARAM = "__dry_run__"
"""Param that is True in a dry run. Source: workflow-runner specification, "Dry Run Mode"."""

_NO_MODELS: Mapping[str, type[BaseModel]] = {}


class WorkflowContext:
    """An immutable view of a run; every `with_…` gives a new one and copies no earlier output.

    Args:
        run_id: The run, or "" where there is none yet.
        workflow_name: Name of its workflow.
        params: Params by name; must have a strict JSON form.
        outputs: Outputs of finished steps by step name; likewise.
        quality: Quality metrics by step name.
        partition: What the run was tracked under, or None.
        metadata: What the runner says of the run, for instance `resumed`.
        started_at: When the run was started (aware, UTC), or None.

    Attributes:
        step_name: Inside a step, its name; else None.
        attempt: Inside a step, the number of this attempt, from 1; else 0.
        idempotency_key: Inside a step, a key that is the same for every attempt and every resume of this step visit and
            differs between map items; else None.

    Raises:
        SerializationError: A param or output has no strict JSON form.

    Example:
        >>> context = WorkflowContext(params={"symbol": "IBM"}).with_output("load", {"rows": 3})
        >>> context.get_param("symbol"), context.get_output("load", "rows")
        ('IBM', 3)
    """

    run_id: str
    workflow_name: str
    partition: Mapping[str, object] | None
    metadata: Mapping[str, object]
    started_at: datetime | None
    step_name: str | None
    attempt: int
    idempotency_key: str | None
    frame: object | None
    _params: LayeredMap[Document]
    _outputs: LayeredMap[Document]
    _quality: LayeredMap[QualityMetrics]
    _models: Mapping[str, type[BaseModel]]
    _seen_params: DocumentView | None
    _seen_outputs: DocumentView | None

    def __init__(  # noqa: PLR0917 - the order of the contract
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
            partition=_frozen(partition) if partition is not None else None,
            metadata=_frozen(metadata or {}),
            started_at=started_at,
            step_name=None,
            attempt=0,
            idempotency_key=None,
            frame=None,
            _params=LayeredMap(encode_object(params)) if params else NO_ENTRIES,
            _outputs=LayeredMap(encode_object(outputs)) if outputs else NO_ENTRIES,
            _quality=LayeredMap(quality) if quality else NO_ENTRIES,
            _models=_NO_MODELS,
            _seen_params=None,
            _seen_outputs=None,
        )

    @property
    def params(self) -> Mapping[str, object]:
        """Params by name. A value read here may be changed freely: nobody else sees it."""
        view = self._seen_params
        if view is None:
            view = self.__dict__["_seen_params"] = DocumentView(self._params, _NO_MODELS)
        return view

    @property
    def outputs(self) -> Mapping[str, object]:
        """Outputs of finished steps by step name; a model where the step has an `output_model`."""
        view = self._seen_outputs
        if view is None:
            view = self.__dict__["_seen_outputs"] = DocumentView(self._outputs, self._models)
        return view

    @property
    def quality(self) -> Mapping[str, QualityMetrics]:
        """Quality metrics by step name."""
        return self._quality

    @property
    def cancel_reason(self) -> str | None:
        """Why this step is being cancelled, or None while it is not.

        One of `user`, `step_timeout`, `run_timeout`, `shutdown`, `lease_lost`, `sibling_failed`, and `cancelled` if the
        caller of `execute` was cancelled, or middleware cancelled the attempt. A `def` handler may look at it from its
        thread, to end early.
        """
        reason = getattr(self.frame, "current_cancel_reason", None)
        return str(reason) if reason is not None else None

    @property
    def is_dry_run(self) -> bool:
        return self.params.get(DRY_RUN_PARAM) is True

    def get_param(self, key: str, default: object = None) -> object:
        """The param `key`, or `default`."""
        return self.params.get(key, default)

    def has_output(self, step: str) -> bool:
        """Whether `step` has finished with an output in this run."""
        return step in self._outputs

    def get_output(self, step: str, key: str | None = None, default: object = None) -> object:
        """The output of `step`, or what it has under `key`; `default` where there is none."""
        if step not in self._outputs:
            return default
        output = self.outputs[step]
        if key is None:
            return output
        if isinstance(output, Mapping):
            return output.get(key, default)
        return getattr(output, key, default) if isinstance(output, BaseModel) else default

    def get_quality(self, step: str) -> QualityMetrics | None:
        """What `step` measured about its data, or None."""
        return self._quality.get(step)

    def with_params(self, updates: Mapping[str, object]) -> Self:
        """A context in which `updates` are laid over the params."""
        return self.with_documents(encode_object(updates))

    def with_output(self, step: str, output: object) -> Self:
        """A context in which `step` has this output."""
        return self.with_documents(outputs={step: encode(output)})

    def with_quality(self, step: str, quality: QualityMetrics) -> Self:
        """A context in which `step` has these quality metrics."""
        return self._changed(_quality=self._quality.adding({step: quality}))

    def with_metadata(self, updates: Mapping[str, object]) -> Self:
        """A context in which `updates` are laid over the metadata."""
        return self._changed(metadata=_frozen({**self.metadata, **updates}))

    def to_dict(self) -> dict[str, JsonValue]:
        """The context as JSON values; `from_dict` gives it back."""
        return {
            "run_id": self.run_id,
            "workflow_name": self.workflow_name,
            "params": {key: each.value() for key, each in self._params.items()},
            "outputs": {step: each.value() for step, each in self._outputs.items()},
            "quality": {step: encode(metrics).value() for step, metrics in self._quality.items()},
            "partition": encode(self.partition).value(),
            "metadata": encode(self.metadata).value(),
            "started_at": self.started_at.isoformat() if self.started_at else None,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> Self:
        """The context that `to_dict` wrote.

        Raises:
            ValueError: `stored` is not what `to_dict` writes.
        """
        try:
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
            raise ValueError(f"this is not a context as to_dict writes it: {exc}") from exc

    def for_attempt(self, step_name: str, attempt: int, idempotency_key: str, frame: object) -> Self:
        """The context that one attempt of a step is given: with views of its own, so that attempts share no values."""
        return self._changed(
            step_name=step_name,
            attempt=attempt,
            idempotency_key=idempotency_key,
            frame=frame,
            _seen_params=None,
            _seen_outputs=None,
        )

    def for_item(self, params: Mapping[str, Document]) -> Self:
        """The context that a map's item begins with: this one, with these params too."""
        return self._changed(_params=self._params.adding(params), _seen_params=None, _seen_outputs=None)

    def with_documents(
        self,
        params: Mapping[str, Document] | None = None,
        outputs: Mapping[str, Document] | None = None,
    ) -> Self:
        """`with_params` and `with_output` for values that are encoded already."""
        if params and outputs:
            return self.with_documents(params).with_documents(outputs=outputs)
        if params:
            return self._changed(_params=self._params.adding(params), _seen_params=None)
        if outputs:
            return self._changed(_outputs=self._outputs.adding(outputs), _seen_outputs=None)
        return self

    def with_models(self, models: Mapping[str, type[BaseModel]]) -> Self:
        """A context that revives the outputs of these steps as these models; others become plain values."""
        return self._changed(_models=models, _seen_outputs=None)

    def outside_steps(self) -> Self:
        """The context without its tie to a step."""
        return self._changed(step_name=None, attempt=0, idempotency_key=None, frame=None)

    @property
    def models(self) -> Mapping[str, type[BaseModel]]:
        """Models that outputs are revived as, by step name."""
        return self._models

    @property
    def documents(self) -> tuple[LayeredMap[Document], LayeredMap[Document]]:
        """Params and outputs as they are stored."""
        return self._params, self._outputs

    def __repr__(self) -> str:
        at = f", step {self.step_name!r}" if self.step_name else ""
        return f"<WorkflowContext of run {self.run_id!r}{at}>"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a context is immutable; make a new one with with_params, with_output or with_metadata")

    def _changed(self, **attributes: object) -> Self:
        """A copy with other attributes; by one union of dicts, because a run makes several for each step."""
        changed = object.__new__(type(self))
        object.__setattr__(changed, "__dict__", self.__dict__ | attributes)
        if type(self) is not WorkflowContext:  # what a subclass remembers may no longer be true
            for name in changed.__dict__.keys() - WorkflowContext.__annotations__.keys():
                del changed.__dict__[name]
        return changed

    def __copy__(self) -> Self:
        return self._changed(_seen_params=None, _seen_outputs=None)

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()


def _frozen(mapping: Mapping[str, object]) -> Mapping[str, object]:
    return MappingProxyType(dict(mapping)) if mapping else _NOTHING


_NOTHING: Mapping[str, object] = MappingProxyType({})
"""The one that is empty; it serves all."""


def _as_mapping(value: object) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a mapping, found {type(value).__name__}")
    return value
