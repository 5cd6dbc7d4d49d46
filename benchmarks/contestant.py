"""The measured programs and their capabilities."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import peers

OURS = "spine_async"
BEFORE = "before"

_SQL = frozenset({"sqlite", "postgres"})
_STORES = _SQL | {"file", "redis"}
_NO_SIZES: Mapping[str, Mapping[str, int]] = {}
_NO_MODULES: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Contestant:
    """A measured program: this library, a limit of the machine, or a peer.

    Attributes:
        name: Name in the table.
        module: Program under `benchmarks.contestants`.
        imported: Module whose import W6 measures; None excludes it from W6.
        backends: Supported backends by verb.
        peer: Environment of the peer; None means the current one.
        modules: Other programs, by verb.
        arguments: Further arguments of its programs.
        at_most: Maximum sizes by workload; larger measurements are excluded, because they would take minutes.
    """

    name: str
    module: str
    backends: Mapping[str, frozenset[str]]
    imported: str | None = None
    peer: str | None = None
    at_most: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: _NO_SIZES)
    modules: Mapping[str, str] = field(default_factory=lambda: _NO_MODULES)
    arguments: tuple[str, ...] = ()

    @property
    def is_peer(self) -> bool:
        return self.peer is not None

    @property
    def python(self) -> Path:
        return peers.python_of(self.peer) if self.peer else Path(sys.executable)

    def module_of(self, verb: str) -> str:
        """The program that executes the verb."""
        return self.modules.get(verb, self.module)

    def can(self, workload: str, verb: str, backend: str, size: Mapping[str, int]) -> bool:
        """Whether it supports the measurement."""
        if verb == "import_time":
            return self.imported is not None
        limits = self.at_most.get(workload, {})
        return backend in self.backends.get(verb, ()) and all(size[name] <= most for name, most in limits.items())


def _verbs(names: str, backends: frozenset[str] = _SQL) -> dict[str, frozenset[str]]:
    return dict.fromkeys(names.split(), backends)


_POSTGRES_QUEUE = _verbs("queued", frozenset({"postgres"}))
_ALL = "sequential fan_out many_runs resume"
_WITHOUT = _SQL | {"none"}

CONTESTANTS = (
    Contestant(
        OURS,
        "spine",
        {
            **_verbs(_ALL, _SQL | {"memory", "none"}),
            **_verbs("sequential fan_out many_runs", _STORES | {"memory", "none"}),
            **_verbs("costs pick_up queued parked follow look_up scale_runs scale_map"),
            "stream": frozenset({"memory", "none"}),
        },
        OURS,
        modules={
            **dict.fromkeys(("pick_up", "queued", "parked"), "spine_service"),
            "follow": "spine_events",
            "look_up": "spine_queries",
            **dict.fromkeys(("scale_runs", "scale_map"), "spine_scale"),
        },
    ),
    Contestant(BEFORE, "before", _verbs("costs"), arguments=(str(peers.ROOT),)),
    Contestant("raw step", "raw_step", _verbs("sequential", _STORES)),
    Contestant("raw group", "raw_group", _verbs("fan_out many_runs", _STORES), at_most={"W8": {"step_ms": 0}}),
    Contestant("raw rows", "raw_rows", _verbs("fan_out"), at_most={"W8": {"items": 0}}),
    Contestant("bare loop", "bare", {"sequential": frozenset({"none"}), "fan_out": frozenset({"memory"})}, at_most={}),
    Contestant(
        "DBOS",
        "peers.dbos",
        _verbs(f"{_ALL} queued"),
        "dbos",
        "dbos",
        {"W8": {"items": 0}},
        modules={"queued": "peers.dbos_queue"},
    ),
    Contestant(
        "LangGraph",
        "peers.langgraph",
        {**_verbs(_ALL), "sequential": _WITHOUT},
        "langgraph.func",
        "langgraph",
        {"W2": {"items": 1000}, "W8": {"items": 0}},
    ),
    Contestant(
        "LangGraph graph",
        "peers.langgraph_graph",
        {**_verbs("fan_out many_runs"), "sequential": _WITHOUT},
        None,
        "langgraph",
        {"W4": {"steps": 300}, "W8": {"items": 0}},
    ),
    Contestant(
        "Absurd", "peers.absurd", _verbs(_ALL, frozenset({"postgres"})), "absurd_sdk", "absurd", {"W8": {"items": 0}}
    ),
    Contestant(
        "Burr",
        "peers.burr",
        {**_verbs("many_runs resume"), "sequential": _WITHOUT},
        "burr.core",
        "burr",
        {"W4": {"steps": 300}},
    ),
    Contestant("Procrastinate", "peers.procrastinate_queue", _POSTGRES_QUEUE, peer="procrastinate"),
    Contestant("PgQueuer", "peers.pgqueuer_queue", _POSTGRES_QUEUE, peer="pgqueuer"),
)
