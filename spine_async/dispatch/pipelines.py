"""Pipelines by name, which dispatchers look up: in this process, or on a worker of a cluster."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio

from spine_async._model.async_callable import is_async_callable
from spine_async._model.failure import describe
from spine_async._model.signature import check_callable
from spine_async.errors import DefinitionError

PipelineFunction = TypeVar("PipelineFunction", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline.

    Attributes:
        function: Takes the params.
        is_async: Whether it is an `async def`.
    """

    function: Callable[[Mapping[str, object]], Any]
    is_async: bool


class Pipelines:
    """A registry of pipelines: functions that take `params`, by name.

    A name with a colon that is not registered, `package.module:function`, is imported.

    Example:
        >>> pipelines = Pipelines()
        >>> @pipelines.pipeline("prices.load")
        ... async def load(params):
        ...     return {"rows": len(params["symbols"])}
        >>> pipelines.names
        ('prices.load',)
    """

    def __init__(self) -> None:
        self._pipelines: dict[str, Pipeline] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the registered pipelines, sorted."""
        return tuple(sorted(self._pipelines))

    def pipeline(self, name: str) -> Callable[[PipelineFunction], PipelineFunction]:
        """Register the decorated function, which takes `params`, under `name`.

        Raises:
            DefinitionError: The name is empty or already registered, or the decorated object is not callable.
        """
        if not isinstance(name, str) or not name:
            raise DefinitionError(f"{name!r} cannot be the name of a pipeline; it must be a string")

        def register(function: PipelineFunction) -> PipelineFunction:
            self.register(name, function)
            return function

        return register

    def register(self, name: str, function: Callable[..., Any]) -> None:
        """Register `function`, which takes `params`, under `name`.

        Raises:
            DefinitionError: The name is already registered, or `function` is not callable.
        """
        if name in self._pipelines:
            raise DefinitionError(f"a pipeline named {name!r} is already registered")
        self._pipelines[name] = _checked(name, function)

    def find(self, name: str) -> Pipeline:
        """The pipeline with this name. May import a module, so it does not belong into an event loop.

        Raises:
            DefinitionError: There is none, or its module cannot be imported.
        """
        found = self._pipelines.get(name)
        if found is None and ":" in name:
            found = self._pipelines[name] = _checked(name, import_object(name))
        if found is None:
            known = ", ".join(repr(each) for each in self.names) or "none"
            raise DefinitionError(f"there is no pipeline {name!r}; the registered pipelines are: {known}")
        return found

    async def find_in_loop(self, name: str) -> Pipeline:
        """As `find`, in a thread if a module may have to be imported."""
        if name in self._pipelines or ":" not in name:
            return self.find(name)
        return await anyio.to_thread.run_sync(self.find, name)


def import_object(path: str) -> Any:
    """The object at `package.module:attribute`.

    Raises:
        DefinitionError: The module cannot be imported, or has no such attribute.
    """
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as exc:
        raise DefinitionError(f"{path!r} cannot be imported: {describe(exc)}") from exc
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as exc:
        raise DefinitionError(f"{path!r} cannot be imported: {exc}") from exc
    return found


def _checked(name: str, function: Any) -> Pipeline:
    if not callable(function):
        raise DefinitionError(f"pipeline {name!r} is {function!r}; it must be callable")
    try:
        check_callable("pipeline", function)
    except ValueError as exc:
        raise DefinitionError(f"pipeline {name!r}: {exc}") from None
    return Pipeline(function, is_async_callable(function))
