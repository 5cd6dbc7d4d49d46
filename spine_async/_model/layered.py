"""A mapping to which adding one key makes a new mapping without copying the old one.

Theory of operation: the mapping is a stack of dicts, the newest on top. `adding` pushes a small dict and then merges
the top two as long as the upper one is at least as large as the one below it, as a binary counter carries. N additions
copy O(N log N) entries in all, a look-up passes at most log2(N) dicts, and every older mapping stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

ValueT = TypeVar("ValueT")


class LayeredMap(Mapping[str, ValueT]):
    """An immutable mapping with cheap additions; a later value for a key shadows the earlier one."""

    __slots__ = ("_layers",)

    def __init__(self, base: Mapping[str, ValueT] | None = None) -> None:
        self._layers: tuple[Mapping[str, ValueT], ...] = (dict(base),) if base else ()

    def adding(self, entries: Mapping[str, ValueT]) -> LayeredMap[ValueT]:
        """A mapping with `entries` on top of this one's."""
        if not entries:
            return self
        layers = self._layers
        grown: LayeredMap[ValueT] = object.__new__(LayeredMap)
        is_small = layers and len(entries) < len(layers[-1])
        grown._layers = (*layers, entries) if is_small else _carry([*layers, entries])
        return grown

    def __getitem__(self, key: str) -> ValueT:
        for layer in reversed(self._layers):
            if key in layer:
                return layer[key]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return any(key in layer for layer in self._layers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._flat())

    def __len__(self) -> int:
        return len(self._flat())

    def _flat(self) -> Mapping[str, ValueT]:
        if len(self._layers) == 1:
            return self._layers[0]
        flat: dict[str, ValueT] = {}
        for layer in self._layers:
            flat.update(layer)
        return flat


NO_ENTRIES: LayeredMap[Any] = LayeredMap()
"""The one that is empty; it serves all."""


def _carry(layers: list[Mapping[str, ValueT]]) -> tuple[Mapping[str, ValueT], ...]:
    while len(layers) > 1 and len(layers[-1]) >= len(layers[-2]):
        upper = layers.pop()
        layers[-1] = {**layers[-1], **upper}
    return tuple(layers)
