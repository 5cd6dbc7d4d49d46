"""Durable agents of Pydantic AI: what the model answered and what the tools returned is recorded by `context.once`.

Needs the extra `pydantic-ai`. The capability `SpineDurability` connects an agent to Pydantic AI's public interface for
durable execution. An agent run inside of `durable(context)` records each model request and each tool call as one call.
A later attempt of the step runs the agent again from its beginning: every request and tool call that had returned is
answered from the record, and the agent continues with the first one that had not.

Theory of operation: Pydantic AI hands each operation to `execute` with a name and a body. The identity of the call
consists of this name, the id and the step of the agent run, and for a tool its call id and arguments. None of them
depends on time or order, so tools may run concurrently. Requests of one step of the agent run are counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from spine_async._model.context import WorkflowContext
from spine_async._model.lambda_step import LambdaStep
from spine_async._model.step import Step
from spine_async._model.step_result import StepResult
from spine_async.errors import MissingExtraError

try:
    from pydantic_ai import RunContext
    from pydantic_ai.durable_exec import (
        JSON_CODEC,
        BaseDurabilityCapability,
        DurabilityEngineSpec,
        JournalCallableOperationBackend,
        RoleBasedOperationConfig,
        conversation_id_from_run_id,
    )
    from pydantic_ai.messages import ModelMessagesTypeAdapter
except ImportError as exc:
    raise MissingExtraError("spine_async.integrations.pydantic_ai", "pydantic-ai") from exc

__all__ = ["SpineDurability", "agent_step", "durable"]

_NO_CONFIG: Mapping[str, object] = {}
_ENGINE = "spine_async"
_SHOWN_NAME = 150  # characters of the name of an operation, which contains those of agent, toolset and tool


class _Recorder:
    """Records the calls of the agents that run inside of one `durable` block."""

    def __init__(self, context: WorkflowContext, name: str) -> None:
        self.context = context
        self._prefix = f"{context.idempotency_key}{f'/{name}' if name else ''}"
        self._runs = 0

    def next_run_id(self) -> str:
        """The id of the next agent run; the same in each attempt."""
        self._runs += 1
        return f"{self._prefix}:{self._runs}"


_recorder: ContextVar[_Recorder | None] = ContextVar("spine_async_agent_recorder", default=None)


@contextmanager
def durable(context: WorkflowContext, name: str = "") -> Iterator[None]:
    """Record what agents with `SpineDurability` do inside of this context.

    Args:
        context: The context of the running step.
        name: Tells several such blocks of one step apart, for instance if they run concurrently.

    Example:
        >>> async def answer(context, config):
        ...     with durable(context):
        ...         result = await agent.run(context.params["prompt"])
        ...     return {"answer": result.output}
    """
    token = _recorder.set(_Recorder(context, name))
    try:
        yield
    finally:
        _recorder.reset(token)


class SpineDurability(BaseDurabilityCapability):
    """Makes an agent durable inside of `durable(context)`; elsewhere the agent runs as without it.

    Each model request, each call of a function tool or MCP tool, and each discovery of tools is recorded by
    `context.once`. So it is executed at least once: a tool that returned just before the process died may be called
    again. Pass the `tool_call_id` to services that accept an idempotency key.

    The agent needs a `name`, and each of its toolsets an `id`. Both are part of the records: an agent that is renamed
    while a step is unfinished repeats its calls.

    Args:
        models: Further models by id, for `agent.run(model=…)`. The model of the agent needs no entry.
        event_stream_handler: Receives the events of the model and of the tools while they happen, for instance to
            `emit` tokens. Events of recorded requests are not repeated in a later attempt.
        name: Name of the agent in the records; None means the name of the agent.

    Example:
        >>> from pydantic_ai import Agent
        >>> from pydantic_ai.models.test import TestModel
        >>> agent = Agent(TestModel(), name="support", capabilities=[SpineDurability()])
    """

    engine_spec = DurabilityEngineSpec(
        engine_name=_ENGINE,
        durable_unit_noun="call",
        durable_container_noun="step",
        codec=JSON_CODEC,
        wrapped_toolset_kinds=frozenset({"function", "mcp", "dynamic"}),
        unsupported_runtime_toolset_kinds=frozenset({"function", "mcp", "dynamic"}),
        toolset_lifecycles={"function": "enter-always", "mcp": "enter-in-durable-unit", "dynamic": "enter-never"},
        tool_config_key=_ENGINE,
    )

    @property
    def in_durable_context(self) -> bool:
        """Whether an agent run is recorded here; not inside of a recorded call, such as a tool that runs an agent."""
        return _recorder.get() is not None

    def get_default_run_id(self) -> str | None:
        """The id of an agent run, which is the same in each attempt of the step."""
        recorder = _recorder.get()
        return recorder.next_run_id() if recorder is not None else None

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """The id of a conversation that begins with this run."""
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        """When the run began, in its first attempt; its `timeout` counts from then."""
        recorder = _recorder.get()
        if recorder is None:
            return None
        began = await recorder.context.once(f"{self.name}__run_start_time", _now, key=run_id)
        return datetime.fromisoformat(began)

    def get_durable_operation_backend(self) -> _Backend:
        """The backend that records operations."""
        config = RoleBasedOperationConfig(
            model=_NO_CONFIG,
            event=_NO_CONFIG,
            capability=_NO_CONFIG,
            tool=_NO_CONFIG,
            resolve_tool=lambda operation_id, tool, tool_name: self._tool_config(tool, tool_name),
        )
        return _Backend(agent_name=self.name, default_model_id=self.default_model_id, config=config)

    def _tool_config(self, tool: object, tool_name: str) -> Any:
        """The config of a tool; False for one with the metadata `{"spine_async": False}`, which is not recorded."""
        metadata = getattr(getattr(tool, "tool_def", None), "metadata", None) or {}
        return False if metadata.get(_ENGINE) is False else _NO_CONFIG


class _Backend(JournalCallableOperationBackend):
    """Executes each operation as a call of `context.once`."""

    async def execute(
        self,
        *,
        operation_id: object,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: object,
    ) -> object:
        """Execute `body`, unless its result is recorded."""
        recorder = _recorder.get()
        if recorder is None:
            return await body()

        async def unrecorded() -> object:
            token = _recorder.set(None)  # what the call does inside is part of it
            try:
                return await body()
            finally:
                _recorder.reset(token)

        return await recorder.context.once(name[:_SHOWN_NAME], unrecorded, key=[name, *_identity(cache_key)])


def _identity(cache_key: tuple[object, ...]) -> list[Any]:
    """What distinguishes an operation from others of the same name, as JSON that is the same in each attempt."""
    run = next((each for each in cache_key if isinstance(each, RunContext)), None)
    if run is not None:
        arguments = [_as_json(each) for each in cache_key if isinstance(each, dict)] if run.tool_call_id else []
        return [run.run_id, run.run_step, run.tool_call_id, *arguments]
    return [_event_identity(each) for each in cache_key]


def _event_identity(value: object) -> Any:
    """For an event its kind and the tool call that it reports, because events contain times; else the value."""
    kind = getattr(value, "event_kind", None)
    if kind is None:
        return value if isinstance(value, str) else None
    part = getattr(value, "part", None) or getattr(value, "result", None)
    return [kind, getattr(part, "tool_call_id", None)]


def _as_json(value: object) -> Any:
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:  # the id of the tool call remains
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat()


def agent_step(
    name: str,
    agent: Any,
    *,
    prompt: str | Callable[[WorkflowContext], Any] = "prompt",
    deps: Callable[[WorkflowContext], Any] | None = None,
    history: Callable[[WorkflowContext], Any] | None = None,
    **options: Any,
) -> LambdaStep:
    """A step that runs an agent, durably: a workflow of this step alone is one run for each run of the agent.

    The output of the step is `{"output": …, "messages": […], "usage": {…}}`: the output of the agent in its JSON form,
    all messages as Pydantic AI stores them, and the tokens and requests that were used.

    Args:
        name: Name of the step.
        agent: An agent with the capability `SpineDurability`.
        prompt: The param with the prompt, or a function of the context that returns the prompt (None continues the
            history without a prompt).
        deps: Makes the dependencies of the agent from the context; None means the context itself.
        history: Returns the messages of an earlier run, as an output of such a step contains them.
        options: Options of `Step.lambda_`, such as `retry` and `timeout`.

    Raises:
        DefinitionError: An option is invalid.
    """

    async def run(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        given = context.params[prompt] if isinstance(prompt, str) else prompt(context)
        earlier = history(context) if history is not None else None
        messages = ModelMessagesTypeAdapter.validate_python(earlier) if earlier is not None else None
        with durable(context):
            result = await agent.run(given, deps=context if deps is None else deps(context), message_history=messages)
        return StepResult.ok(
            {
                "output": to_jsonable_python(result.output),
                "messages": ModelMessagesTypeAdapter.dump_python(result.all_messages(), mode="json"),
                "usage": to_jsonable_python(result.usage),
            }
        )

    return Step.lambda_(name, run, **options)
