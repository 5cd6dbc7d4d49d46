"""Compact tables over the indexes of a map's items: a set of indexes, and a number for each index.

Indexes arrive in almost any order, and some never arrive. Both tables are divided into chunks, so their size depends on
the number of entries, not on the largest index.
"""

from __future__ import annotations

from array import array

_BITS = 12
_CHUNK = 1 << _BITS


class IndexSet:
    """A set of indexes; takes one bit per index."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}
        self._count = 0

    def add(self, index: int) -> None:
        """Add an index."""
        chunk = self._chunks.get(index >> _BITS)
        if chunk is None:
            chunk = self._chunks[index >> _BITS] = bytearray(_CHUNK >> 3)
        place, bit = (index & (_CHUNK - 1)) >> 3, 1 << (index & 7)
        if not chunk[place] & bit:
            chunk[place] |= bit
            self._count += 1

    @property
    def last(self) -> int:
        """The largest index, or -1."""
        if not self._chunks:
            return -1
        number = max(self._chunks)
        return (number << _BITS) + int.from_bytes(self._chunks[number], "little").bit_length() - 1

    def __contains__(self, index: int) -> bool:
        chunk = self._chunks.get(index >> _BITS)
        return chunk is not None and bool(chunk[(index & (_CHUNK - 1)) >> 3] & (1 << (index & 7)))

    def __len__(self) -> int:
        return self._count


class DigestTable:
    """A digest for each index; takes eight bytes per index. 0 means that there is none."""

    def __init__(self) -> None:
        self._chunks: dict[int, array[int]] = {}

    def __setitem__(self, index: int, digest: int) -> None:
        chunk = self._chunks.get(index >> _BITS)
        if chunk is None:
            if not digest:
                return
            chunk = self._chunks[index >> _BITS] = array("q", bytes(8 * _CHUNK))
        chunk[index & (_CHUNK - 1)] = digest

    def __getitem__(self, index: int) -> int:
        chunk = self._chunks.get(index >> _BITS)
        return chunk[index & (_CHUNK - 1)] if chunk is not None else 0
