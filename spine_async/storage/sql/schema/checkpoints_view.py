r"""The view `core_workflow_checkpoints`: each finished step visit with the context after it.

Theory of operation: a row of the table of steps holds only the values that its visit added. The context of a visit is
built from rows of the same run, up to its own number. Only rows of the run's own steps, rows in its own scope and rows
in enclosing scopes are used. A child workflow sees nothing of what encloses it: its scope is the outermost one. Each of
these rows contributes members (a key and its JSON text) to params, outputs and quality. If several rows have a member
for one key, the deepest scope has priority, and within one scope the latest row. The run's initial members have the
lowest priority.

JSON is parsed and built as text, because both databases lose values when they decode them: big integers, floats of 17
digits, `\u0000`. A document is first normalized (`_normalized_…`): an escaped backslash and an escaped quote become
`\u005c` and `\u0022`, so that each `"` in it delimits a string.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CHECKPOINTS_VIEW = "core_workflow_checkpoints"

# Of the rows that are not visits, an override contributes only params, and a pending wait contributes nothing.
_ADDS_OUTPUT = "v.status IN ('completed', 'skipped', 'failed')"
_ADDS_PARAMS = "v.status <> 'waiting'"
# The updates of a row override the initial params of its item, and its `appends` come after both.
_PARAM_LAYERS = {"item_params": 0, "updates": 1, "appends": 2}


@dataclass(frozen=True, slots=True)
class CheckpointsDialect:
    """The SQL expressions by which a database parses and builds JSON objects.

    Attributes:
        name: (text) → the key of a member with this name, as JSON text.
        members: (object text, alias) → FROM item with the members of the object.
        key: (alias) → the key of a member.
        text: (alias, object text) → the exact JSON text of a member's value.
        join: (key, text) → aggregate of the form `"a":1,"b":2`.
        concat: (text) → aggregate of the texts, separated by commas.
        same_key: (JSON text of a name) → the same text in the form of `key`.
        same_text: (JSON text of a value) → the same text in the form of `text`.
        position: (text, part) → where the part begins in the text, from 1; 0 if nowhere.
    """

    name: Callable[[str], str]
    members: Callable[[str, str], str]
    key: Callable[[str], str]
    text: Callable[[str, str], str]
    join: Callable[[str, str], str]
    concat: Callable[[str], str]
    same_key: Callable[[str], str]
    same_text: Callable[[str], str]
    position: Callable[[str, str], str]


def _normalized_sqlite(document: str) -> str:
    return f"replace(replace({document}, '\\\\', '\\u005c'), '\\\"', '\\u0022')"


def _sqlite_key(alias: str) -> str:
    # `key` is decoded and ends at a NUL; `fullkey` is `$.name` or `$."na me"` with its escapes.
    path = f"{alias}.fullkey"
    return f"CASE substr({path}, 3, 1) WHEN '\"' THEN substr({path}, 3) ELSE '\"' || substr({path}, 3) || '\"' END"


SQLITE = CheckpointsDialect(
    name=lambda text: _normalized_sqlite(f"json_quote({text})"),
    members=lambda document, alias: f"json_each({_normalized_sqlite(document)}) {alias}",
    key=_sqlite_key,
    text=lambda alias, document: (
        f"COALESCE({_normalized_sqlite(document)} -> {alias}.fullkey, json_quote({alias}.value))"
    ),
    join=lambda key, text: f"group_concat({key} || ':' || {text}, ',')",
    concat=lambda text: f"group_concat({text}, ',')",
    same_key=_normalized_sqlite,
    same_text=_normalized_sqlite,
    position=lambda text, part: f"instr({text}, {part})",
)

# PostgreSQL decodes the strings of a document that it parses, and rejects NUL. So NUL is replaced temporarily by a
# noncharacter that Unicode reserves for internal use.
_NUL, _STAND_IN = "\\u0000", "\\ufdd0"


def _normalized_postgres(document: str) -> str:
    return f"replace(replace({document}, '\\\\', '\\u005c'), '{_NUL}', '{_STAND_IN}')::json"


POSTGRES = CheckpointsDialect(
    name=lambda text: f"to_json({text})::text",
    members=lambda document, alias: f"json_each({_normalized_postgres(document)}) {alias}",
    key=lambda alias: f"replace(to_json({alias}.key)::text, U&'{_STAND_IN.replace('u', '')}', '{_NUL}')",
    text=lambda alias, document: f"replace({alias}.value::text, '{_STAND_IN}', '{_NUL}')",
    join=lambda key, text: f"string_agg({key} || ':' || {text}, ',')",
    concat=lambda text: f"string_agg({text}, ',')",
    same_key=lambda name: name,
    same_text=lambda value: f"replace({value}, '\\\\', '\\u005c')",
    position=lambda text, part: f"strpos({text}, {part})",
)


def checkpoints_query(dialect: CheckpointsDialect) -> str:
    """The SELECT of the view."""
    params = _params(
        dialect,
        _initial(dialect, "r.params"),
        *(_param_updates(dialect, column) for column in _PARAM_LAYERS),
    )
    outputs = _object(dialect, _initial(dialect, "r.initial_outputs"), _step_values(dialect, "output"))
    quality = _object(dialect, _initial(dialect, "r.initial_quality"), _step_values(dialect, "quality"))
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


def _object(dialect: CheckpointsDialect, *sources: str) -> str:
    """Scalar subquery for the members of one object as text."""
    members = " UNION ALL ".join(sources)
    ranked = (
        "SELECT m.name, m.body, row_number() OVER "
        "(PARTITION BY m.name ORDER BY m.depth DESC, m.seq DESC, m.layer DESC) AS place "
        f"FROM ({members}) m"
    )
    is_chosen = "w.place = 1 AND w.body IS NOT NULL"  # a step that failed last has no output
    return f"COALESCE((SELECT {dialect.join('w.name', 'w.body')} FROM ({ranked}) w WHERE {is_chosen}), '')"


def _params(dialect: CheckpointsDialect, *sources: str) -> str:
    """As `_object`; a member of the layer `appends` is an array that continues the list before it."""
    members = " UNION ALL ".join(sources)
    appends = _PARAM_LAYERS["appends"]
    ranked = (
        "SELECT m.name, m.body, m.layer, row_number() OVER "
        "(PARTITION BY m.name ORDER BY m.depth DESC, m.seq DESC, m.layer DESC) AS place "
        f"FROM ({members}) m"
    )
    started = (
        f"SELECT p.*, min(CASE WHEN p.layer < {appends} THEN p.place END) OVER (PARTITION BY p.name) AS start "
        f"FROM ({ranked}) p"
    )
    elements = "CASE WHEN q.body LIKE '[_%]' THEN substr(q.body, 2, length(q.body) - 2) END"
    all_rows = "PARTITION BY q.name ORDER BY q.place DESC ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
    joined = (
        f"SELECT q.name, q.body, q.layer, q.place, {dialect.concat(elements)} OVER ({all_rows}) AS elements "
        f"FROM ({started}) q WHERE q.start IS NULL OR q.place <= q.start"
    )
    body = f"CASE WHEN w.layer < {appends} THEN w.body ELSE '[' || COALESCE(w.elements, '') || ']' END"
    return f"COALESCE((SELECT {dialect.join('w.name', body)} FROM ({joined}) w WHERE w.place = 1), '')"


def _initial(dialect: CheckpointsDialect, document: str) -> str:
    return (
        f"SELECT {dialect.key('j')} AS name, {dialect.text('j', document)} AS body, -1 AS depth, 0 AS seq, 0 AS layer "
        f"FROM {dialect.members(document, 'j')} WHERE {_has_no_child('s.scope')}"
    )


def _step_values(dialect: CheckpointsDialect, column: str) -> str:
    return (
        f"SELECT {dialect.name('v.step_name')}, v.{column}, length(v.scope), v.seq, 0 "
        f"FROM core_workflow_steps v WHERE {_visible()} AND {_ADDS_OUTPUT} AND ({_has_value(column)})"
    )


def _has_value(column: str) -> str:
    if column == "output":
        return "v.output IS NOT NULL OR v.status = 'failed'"
    return f"v.{column} IS NOT NULL"


def _param_updates(dialect: CheckpointsDialect, column: str) -> str:
    document = f"v.{column}"
    return (
        f"SELECT {dialect.key('j')}, {dialect.text('j', document)}, length(v.scope), v.seq, {_PARAM_LAYERS[column]} "
        f"FROM core_workflow_steps v CROSS JOIN {dialect.members(document, 'j')} "
        f"WHERE {_visible()} AND {_ADDS_PARAMS} AND {document} IS NOT NULL"
    )


def _visible() -> str:
    inside = "substr(s.scope, 1, length(v.scope) + 1) = v.scope || '/'"
    rest = "ltrim(substr(s.scope, length(v.scope) + 1), '/')"
    return f"v.run = s.run AND v.seq <= s.seq AND (v.scope IN ('', s.scope) OR {inside}) AND {_has_no_child(rest)}"


def _has_no_child(scope: str) -> str:
    """Whether a part of a scope leads through no child workflow: each of its segments ends with a bracket."""
    without_brackets = f"replace({scope} || '/', ']/', '')"
    return f"({scope} = '' OR {without_brackets} = replace({without_brackets}, '/', ''))"
