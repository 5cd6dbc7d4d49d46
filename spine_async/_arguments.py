"""Checks the types of the arguments of `WorkflowRunner` and its methods."""

from __future__ import annotations

import math
from collections.abc import Iterable

from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.context import WorkflowContext
from spine_async._model.naming import check_run_id
from spine_async._model.queue import Queue
from spine_async._model.shown import shown
from spine_async._model.time_option import option_seconds
from spine_async._model.workflow import Workflow
from spine_async.errors import DefinitionError

_PORTS = {
    "db_engine": (
        ("sync_engine", "connect"),
        "an AsyncEngine from create_async_engine(url); or pass config=WorkflowRunnerConfig(database_url=url)",
    ),
    "dispatcher": (("submit",), "a Dispatcher, such as a LocalDispatcher"),
    "store": (
        ("create", "claim", "commit"),
        "a RunStore; pass a database URL as config=WorkflowRunnerConfig(database_url=url)",
    ),
    "tracer_provider": (("get_tracer",), "an OpenTelemetry TracerProvider"),
    "meter_provider": (("get_meter",), "an OpenTelemetry MeterProvider"),
    "clock": (("now", "monotonic"), "a Clock"),
}


def check_runner_arguments(**given: object) -> None:
    """Check the arguments of the constructor of `WorkflowRunner`.

    Raises:
        DefinitionError: One has a wrong type; the message names it.
    """
    for name, (attributes, wanted) in _PORTS.items():
        value = given[name]
        if value is None:
            continue
        if isinstance(value, type) or not all(hasattr(value, attribute) for attribute in attributes):
            kind = f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
            raise DefinitionError(f"{name} is {kind}; it must be {wanted}")
    for name in ("checkpoint_enabled", "dry_run", "work"):
        check_type(name, given[name], bool, "True or False")
    check_type("config", given["config"], WorkflowRunnerConfig, "a WorkflowRunnerConfig(…)")
    workflows = given["workflows"]
    if isinstance(workflows, (Workflow, str)) or not isinstance(workflows, Iterable):
        raise DefinitionError(f"workflows is of type {type(workflows).__name__}; it must be a list of workflows")


def check_queues(queues: object) -> list[Queue]:
    """The queues of a runner; a name stands for a queue without limits.

    Raises:
        DefinitionError: They are no list of queues and names, or two have the same name.
    """
    if isinstance(queues, (Queue, str)) or not isinstance(queues, Iterable):
        raise DefinitionError(f"queues is of type {type(queues).__name__}; it must be a list of Queue(name) or names")
    given = [Queue(each) if isinstance(each, str) else each for each in queues]
    for each in given:
        if not isinstance(each, Queue):
            raise DefinitionError(f"{shown(each)} is no queue; give Queue(name), or the name")
    names = [each.name for each in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DefinitionError(f"queue {twice!r} is given twice")
    return given


def check_workflow(value: object) -> None:
    """Raise `DefinitionError` unless the argument `workflow` is a workflow or None."""
    check_type("workflow", value, Workflow, "a Workflow; create one with Workflow(name, steps)")


def check_execute_arguments(workflow: object, context: object, start_from: object) -> None:
    """Raise `DefinitionError` if an argument of `execute` has a wrong type."""
    if not isinstance(workflow, Workflow):
        raise DefinitionError(f"{shown(workflow)} is not a workflow; create one with Workflow(name, steps)")
    check_type(
        "context", context, WorkflowContext, "a WorkflowContext; WorkflowContext.from_dict creates one from a dict"
    )
    check_type("start_from", start_from, str, "the name of a step")


def check_type(name: str, value: object, kind: type, wanted: str) -> None:
    """Raise `DefinitionError` if the argument is neither None nor of this type."""
    if value is not None and not isinstance(value, kind):
        raise DefinitionError(f"{name} is of type {type(value).__name__}; it must be {wanted}")


def checked_page(run_id: str, after: int) -> str:
    """The run id.

    Raises:
        InvalidRunIdError: The id is invalid.
        DefinitionError: `after` is not an integer.
    """
    check_number("after", after)
    return check_run_id(run_id)


def check_path(name: str, value: object) -> None:
    """Raise `DefinitionError` unless the argument is a text that can be the path of a visit."""
    if not isinstance(value, str):
        raise DefinitionError(f"{name} is of type {type(value).__name__}; it must be the path of a visit")
    if not value.isprintable():
        raise DefinitionError(f"{name} contains control characters or lone surrogates, which no path contains")


def wait_limit(timeout: object) -> float | None:
    """The argument `timeout` of a call that waits, in seconds; None for no limit.

    Raises:
        DefinitionError: It is no duration.
    """
    if timeout is None or (isinstance(timeout, float) and timeout == math.inf):
        return None
    try:
        return option_seconds(timeout, "timeout")
    except ValueError as exc:
        raise DefinitionError(f"{exc}; leave it out to wait without a limit") from None


def check_limit(limit: int, most: int = 1000) -> None:
    """Check how many records a call may return or count.

    Raises:
        DefinitionError: The limit is not an integer.
        ValueError: It does not lie between 1 and `most`.
    """
    check_number("limit", limit)
    if not 1 <= limit <= most:
        raise ValueError(f"limit is {limit}; it must lie between 1 and {most:,}")


def check_number(name: str, value: object) -> None:
    """Raise `DefinitionError` unless the argument is an integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise DefinitionError(f"{name} is of type {type(value).__name__}; it must be an integer")
