"""An immutable mapping with cheap additions.

Theory of operation: the mapping is a stack of dicts, the newest on top. `adding` pushes a small dict and then merges
the top two while the upper one is at least as large as the lower one, as a binary counter carries. N additions copy
O(N log N) entries in total, a look-up searches at most log2(N) dicts, and older mappings stay unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

ValueT = TypeVar("ValueT")


class LayeredMap(Mapping[str, ValueT]):
    """An immutable mapping with cheap additions. A later value of a key shadows the earlier one."""

    __slots__ = ("_layers",)

    def __init__(self, base: Mapping[str, ValueT] | None = None) -> None:
        self._layers: tuple[Mapping[str, ValueT], ...] = (dict(base),) if base else ()

    def adding(self, entries: Mapping[str, ValueT]) -> LayeredMap[ValueT]:
        """A mapping of these entries and `entries`, which take precedence."""
        if not entries:
            return self
        layers = self._layers
        grown: LayeredMap[ValueT] = object.__new__(LayeredMap)
        is_small = layers and len(entries) < len(layers[-1])
        grown._layers = (*layers, entries) if is_small else _carry([*layers, entries])
        return grown

    def without(self, key: str) -> LayeredMap[ValueT]:
        """A mapping without this key. It copies all entries."""
        return LayeredMap({name: value for name, value in self.items() if name != key}) if key in self else self

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
"""The shared empty mapping."""


def _carry(layers: list[Mapping[str, ValueT]]) -> tuple[Mapping[str, ValueT], ...]:
    while len(layers) > 1 and len(layers[-1]) >= len(layers[-2]):
        upper = layers.pop()
        layers[-1] = {**layers[-1], **upper}
    return tuple(layers)
