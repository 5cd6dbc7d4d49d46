"""Queries as the text and the order of values that a driver takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from spine_async.storage.sql.schema.queries import LASTING, Query

_Text = tuple[str, Sequence[str], Mapping[str, object]]


class CompiledQueries:
    """Compiles each lasting query once; those made for one call are not kept."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._known: dict[Query, _Text] = {}

    def bind(self, query: Query, values: Mapping[str, object]) -> tuple[str, list[object]]:
        """The query's text, and the values it takes, in order."""
        text, names, constants = self._known.get(query) or self._compile(query)
        given = {**constants, **values}
        return text, [given[name] for name in names]

    def _compile(self, query: Query) -> _Text:
        compiled = query.compile(dialect=self._dialect)
        assert isinstance(compiled, SQLCompiler)  # noqa: S101 (narrows the type: queries compile to nothing else)
        text = str(compiled), tuple(compiled.positiontup or ()), compiled.params
        if query in LASTING:
            self._known[query] = text
        return text
