r"""The view `core_workflow_checkpoints`: each finished step visit with the context after it.

Theory of operation: a journal entry holds only what its visit added. What a visit saw are the entries of its run up to
its own number that lie outside of map items, in its own scope, or in a scope around it. Each of them contributes
members (a key with its JSON text) to params, outputs and quality; for each key the member of the deepest scope wins,
and among those the latest. The members a run began with lie below all of them.

JSON is read and put together as text, because both databases lose values when they decode them: big integers, floats
of 17 digits, `\u0000`. To be safe from their quirks a document is first brought into a form that means the same
(`_plain_…`): an escaped backslash and an escaped quote are written as `\u005c` and `\u0022`, so that every `"` in it
delimits a string.
"""

# ruff: noqa: S608 (texts are put together from names in this package only)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CHECKPOINTS_VIEW = "core_workflow_checkpoints"

# Contributions of entries that are no visits: an override adds params only, a pending wait nothing.
_ADDS_OUTPUT = "v.status IN ('completed', 'skipped', 'failed')"
_ADDS_PARAMS = "v.status <> 'waiting'"


@dataclass(frozen=True, slots=True)
class SnapshotDialect:
    """How a database takes JSON objects apart and puts them together.

    Attributes:
        name: Text expression → the key that a member of this name has.
        members: Object text expression, alias → FROM item with the object's members.
        key: Alias, object → the member's key.
        text: Alias, object → the exact JSON text of the member's value.
        join: Key and text expressions → an aggregate of the form `"a":1,"b":2`.
    """

    name: Callable[[str], str]
    members: Callable[[str, str], str]
    key: Callable[[str], str]
    text: Callable[[str, str], str]
    join: Callable[[str, str], str]


def _plain_sqlite(document: str) -> str:
    return f"replace(replace({document}, '\\\\', '\\u005c'), '\\\"', '\\u0022')"


def _sqlite_key(alias: str) -> str:
    # `key` is decoded and ends at a NUL; `fullkey` is `$.name` or `$."na me"` with the escapes as they are.
    path = f"{alias}.fullkey"
    return f"CASE substr({path}, 3, 1) WHEN '\"' THEN substr({path}, 3) ELSE '\"' || substr({path}, 3) || '\"' END"


SQLITE = SnapshotDialect(
    name=lambda text: _plain_sqlite(f"json_quote({text})"),
    members=lambda document, alias: f"json_each({_plain_sqlite(document)}) {alias}",
    key=_sqlite_key,
    text=lambda alias, document: f"COALESCE({_plain_sqlite(document)} -> {alias}.fullkey, json_quote({alias}.value))",
    join=lambda key, text: f"group_concat({key} || ':' || {text}, ',')",
)

# PostgreSQL decodes all strings of a document when it takes it apart, and refuses NUL. While it does so, a character
# that Unicode keeps free for such use inside of a program stands in for it.
_NUL, _STAND_IN = "\\u0000", "\\ufdd0"


def _plain_postgres(document: str) -> str:
    return f"replace(replace({document}, '\\\\', '\\u005c'), '{_NUL}', '{_STAND_IN}')::json"


POSTGRES = SnapshotDialect(
    name=lambda text: f"to_json({text})::text",
    members=lambda document, alias: f"json_each({_plain_postgres(document)}) {alias}",
    key=lambda alias: f"replace(to_json({alias}.key)::text, U&'{_STAND_IN.replace('u', '')}', '{_NUL}')",
    text=lambda alias, document: f"replace({alias}.value::text, '{_STAND_IN}', '{_NUL}')",
    join=lambda key, text: f"string_agg({key} || ':' || {text}, ',')",
)


def checkpoints_query(dialect: SnapshotDialect) -> str:
    """What the view selects."""
    params = _object(dialect, _initial(dialect, "r.params"), _updated(dialect, "opening"), _updated(dialect, "updates"))
    outputs = _object(dialect, _initial(dialect, "r.initial_outputs"), _told(dialect, "output"))
    quality = _object(dialect, _initial(dialect, "r.initial_quality"), _told(dialect, "quality"))
    snapshot = (
        f"'{{\"params\":{{' || {params} || '}},\"outputs\":{{' || {outputs} || '}},\"quality\":{{' || {quality} "
        "|| '},\"partition\":' || COALESCE(r.partition, 'null') || '}'"
    )
    return (
        "SELECT r.run_id, r.workflow_name, s.step_name, "
        "s.step_name AS checkpoint_step, s.path, s.seq, s.step_type, s.status, s.attempts, s.duration_ms, "
        f"{snapshot} AS context_snapshot, s.completed_at AS created_at "
        "FROM core_workflow_steps s JOIN core_workflow_runs r ON r.id = s.run "
        "WHERE s.status IN ('completed', 'skipped')"
    )


def _object(dialect: SnapshotDialect, *sources: str) -> str:
    """The members of one object as text, as a scalar subquery."""
    members = " UNION ALL ".join(sources)
    ranked = (
        "SELECT m.name, m.body, row_number() OVER "
        "(PARTITION BY m.name ORDER BY m.depth DESC, m.seq DESC, m.layer DESC) AS place "
        f"FROM ({members}) m"
    )
    return f"COALESCE((SELECT {dialect.join('w.name', 'w.body')} FROM ({ranked}) w WHERE w.place = 1), '')"


def _initial(dialect: SnapshotDialect, document: str) -> str:
    return (
        f"SELECT {dialect.key('j')} AS name, {dialect.text('j', document)} AS body, -1 AS depth, 0 AS seq, 0 AS layer "
        f"FROM {dialect.members(document, 'j')}"
    )


def _told(dialect: SnapshotDialect, column: str) -> str:
    return (
        f"SELECT {dialect.name('v.step_name')}, v.{column}, length(v.scope), v.seq, 0 "
        f"FROM core_workflow_steps v WHERE {_visible()} AND {_ADDS_OUTPUT} AND v.{column} IS NOT NULL"
    )


def _updated(dialect: SnapshotDialect, column: str) -> str:
    document, layer = (
        f"v.{column}",
        0 if column == "opening" else 1,
    )  # a row's updates lie over what its item began with
    return (
        f"SELECT {dialect.key('j')}, {dialect.text('j', document)}, length(v.scope), v.seq, {layer} "
        f"FROM core_workflow_steps v CROSS JOIN {dialect.members(document, 'j')} "
        f"WHERE {_visible()} AND {_ADDS_PARAMS} AND {document} IS NOT NULL"
    )


def _visible() -> str:
    inside = "substr(s.scope, 1, length(v.scope) + 1) = v.scope || '/'"
    return f"v.run = s.run AND v.seq <= s.seq AND (v.scope IN ('', s.scope) OR {inside})"
