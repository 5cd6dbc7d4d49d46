"""Queries compiled to the SQL text and the positional parameters that a driver takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from spine_async.storage.sql.schema.queries import CONSTANT_QUERIES, Query

_Compiled = tuple[str, Sequence[str], Mapping[str, object]]
"""SQL text, parameter names in positional order, values of literals."""


class CompiledQueries:
    """Compiles queries; constant queries are compiled once and cached."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._cache: dict[Query, _Compiled] = {}

    def bind(self, query: Query, params: Mapping[str, object]) -> tuple[str, list[object]]:
        """The SQL text of the query and its parameter values in positional order."""
        text, names, literals = self._cache.get(query) or self._compile(query)
        values = {**literals, **params}
        return text, [values[name] for name in names]

    def _compile(self, query: Query) -> _Compiled:
        compiler = query.compile(dialect=self._dialect)
        assert isinstance(compiler, SQLCompiler)  # noqa: S101 (narrows the type: queries compile to nothing else)
        compiled = str(compiler), tuple(compiler.positiontup or ()), compiler.params
        if query in CONSTANT_QUERIES:
            self._cache[query] = compiled
        return compiled
