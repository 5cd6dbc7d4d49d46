"""Finds the workflows of an application: `module` or `module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from spine_async._model.queue import Queue
from spine_async._model.schedule import Schedule
from spine_async._model.workflow import Workflow
from spine_async.cli.problem import CommandError
from spine_async.runner import WorkflowRunner

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Application:
    """The runner, workflows, schedules and queues of a module or of one of its attributes.

    Attributes:
        target: Its name, as it was given.
        runner: A runner of the application, or None. Its settings count then.
        workflows: The workflows by name.
        schedules: The schedules of the module.
        queues: The queues of the module.
    """

    target: str
    runner: WorkflowRunner | None
    workflows: Mapping[str, Workflow]
    schedules: tuple[Schedule, ...] = ()
    queues: tuple[Queue, ...] = ()

    def workflow(self, name: str | None) -> Workflow:
        """The workflow with this name; without a name the only one.

        Raises:
            CommandError: There is none, or several.
        """
        names = ", ".join(sorted(self.workflows)) or "none"
        if name is not None:
            if name not in self.workflows:
                raise CommandError(f"{self.target} has no workflow {name!r}; it has: {names}")
            return self.workflows[name]
        if len(self.workflows) != 1:
            raise CommandError(f"{self.target} has {len(self.workflows)} workflows: {names}; name one of them")
        return next(iter(self.workflows.values()))


def named_workflow(target: str, app: str | None) -> tuple[str, str | None]:
    """The application and the name of a workflow that an argument means.

    Args:
        target: `module:attribute`; without `app` also `module`; with it the name of a workflow.
        app: The application of the option `--app`, or None.

    Returns:
        The application, and the name of its workflow; None for its only one.
    """
    return (target, None) if app is None or ":" in target else (app, target)


def check_is_no_module(name: str) -> None:
    """Check the name of a workflow that only workers know. With the name of a module, the run would never begin.

    Raises:
        CommandError: A module of the working directory has this name, and no workflow of it has; or it is a file.
    """
    _check_is_no_file(name)
    parts = name.split(".")
    if not all(map(str.isidentifier, parts)) or not Path(*parts).with_suffix(".py").is_file():
        return
    workflows = load_application(name).workflows
    if name not in workflows:
        names = ", ".join(sorted(workflows)) or "none"
        raise CommandError(f"{name} is a module; with --queue give the name of a workflow, or --app. It has: {names}")


def load_application(target: str) -> Application:
    """Import a module and find its workflows. The working directory is searched first.

    Args:
        target: `module`, or `module:attribute`. The attribute is a `Workflow`, a `WorkflowRunner`, or a list or mapping
            of workflows. Of a module, its only runner counts; if it has none, its workflows, schedules and queues.

    Raises:
        CommandError: The module cannot be imported, or has nothing of the kind.
    """
    name, _, attribute = target.partition(":")
    module = _import(name)
    if not attribute:
        return _of_module(target, module)
    value: object = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise CommandError(f"module {name!r} has no attribute {attribute!r}")
        value = getattr(value, part)
    return _of_value(target, value)


def _import(name: str) -> ModuleType:
    folder = os.getcwd()  # noqa: PTH109 - an entry of sys.path is a string
    if folder not in sys.path:
        sys.path.insert(0, folder)
    _check_is_no_file(name)
    if not all(part.isidentifier() for part in name.split(".")):
        raise CommandError(f"{name!r} is no module; give its name with dots, such as myapp.flows")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        is_missing = exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}."))
        hint = f"; the working directory is {folder}" if is_missing else ""
        raise CommandError(f"module {name!r} cannot be imported: {exc}{hint}") from exc
    except Exception as exc:
        frames = traceback.extract_tb(exc.__traceback__)
        place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        raise CommandError(f"module {name!r} cannot be imported: {type(exc).__name__}: {exc}{place}") from exc


def _check_is_no_file(name: str) -> None:
    file = Path(name)
    if file.suffix == ".py" and file.is_file():
        hint = f": {'.'.join(file.with_suffix('').parts)}" if not file.is_absolute() else ", from its folder"
        raise CommandError(f"{name!r} is a file; give the name of its module{hint}")


def _of_module(target: str, module: ModuleType) -> Application:
    values = list(vars(module).values())
    runners = list(_unique(each for each in values if isinstance(each, WorkflowRunner)))
    if len(runners) > 1:
        raise CommandError(f"{target} has {len(runners)} runners; name one: {target}:attribute")
    if runners:
        return Application(target, runners[0], runners[0].workflows)
    workflows = _by_name(target, (each for each in values if isinstance(each, Workflow) and each.name))
    schedules = tuple(_unique(each for each in values if isinstance(each, Schedule)))
    if not workflows and not schedules:
        raise CommandError(f"module {target!r} has neither a Workflow nor a WorkflowRunner among its attributes")
    queues = tuple(_unique(each for each in values if isinstance(each, Queue)))
    return Application(target, None, workflows, schedules, queues)


def _of_value(target: str, value: object) -> Application:
    if isinstance(value, WorkflowRunner):
        return Application(target, value, value.workflows)
    given = [value] if isinstance(value, Workflow) else value
    if isinstance(given, Mapping):
        given = list(given.values())
    if isinstance(given, Iterable) and not isinstance(given, str):
        found = list(given)
        if found and all(isinstance(each, Workflow) for each in found):
            return Application(target, None, _by_name(target, found))
    raise CommandError(f"{target} is of type {type(value).__name__}; it must be a Workflow, a WorkflowRunner or a list")


def _by_name(target: str, workflows: Iterable[Workflow]) -> dict[str, Workflow]:
    found: dict[str, Workflow] = {}
    for workflow in workflows:
        if found.setdefault(workflow.name, workflow) is not workflow:
            raise CommandError(
                f"{target} has two workflows with the name {workflow.name!r}; name one: module:attribute"
            )
    return found


def _unique(values: Iterable[T]) -> Iterator[T]:
    """The values without repetitions: a module may have two names for one object."""
    seen: set[int] = set()
    for each in values:
        if id(each) not in seen:
            seen.add(id(each))
            yield each
