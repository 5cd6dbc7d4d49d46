"""The journal entries of one run in little memory.

Theory of operation: entries are kept as they are until there are a few hundred. Those are then packed: column by
column, whole numbers and moments as differences to the one before, and the bytes of that compressed. Entries of a map's
items resemble each other so much that each takes some 25 bytes instead of 650; packing one costs 4 µs. Whoever reads
gets them unpacked, one block after the other. The bytes never leave this process.
"""

from __future__ import annotations

import marshal
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from typing import Any

from spine_async._model.record import VisitRow
from spine_async._model.status import StepStatus, StepType

_BLOCK = 512
"""Entries that are packed together; most runs never have so many."""

_NAMES = tuple(each.name for each in fields(VisitRow))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_values = attrgetter(*_NAMES)
_number = attrgetter("seq")


@dataclass(slots=True)
class _Block:
    """Packed entries, and the largest number among them."""

    last_seq: int
    packed: bytes


class PackedVisits:
    """Journal entries in the order of their numbers."""

    def __init__(self, rows: Sequence[VisitRow] = ()) -> None:
        self._blocks: list[_Block] = []
        self._recent: list[VisitRow] = []
        self.extend(rows)

    def extend(self, rows: Sequence[VisitRow]) -> None:
        """Keep further entries, in whatever order; their numbers are above those of all before."""
        self._recent.extend(sorted(rows, key=_number))
        while len(self._recent) >= _BLOCK:
            block = self._recent[:_BLOCK]
            self._blocks.append(_Block(block[-1].seq, _packed(block)))
            del self._recent[:_BLOCK]

    def __iter__(self) -> Iterator[VisitRow]:
        return self.ending_after(-1)

    def ending_after(self, seq: int) -> Iterator[VisitRow]:
        """The entries with a number above `seq`; what lies before is not unpacked."""
        blocks = (_unpacked(each.packed) for each in self._blocks if each.last_seq > seq)
        return (row for row in chain(chain.from_iterable(blocks), self._recent) if row.seq > seq)


def _packed(rows: Iterable[VisitRow]) -> bytes:
    columns = dict(zip(_NAMES, zip(*map(_values, rows), strict=True), strict=True))
    for name in ("started_at", "completed_at"):
        columns[name] = tuple((at - _EPOCH) // _MICROSECOND for at in columns[name])
    for name in ("step_type", "status"):
        columns[name] = tuple(each.value for each in columns[name])
    steps = [_steps(column) for column in columns.values()]
    try:
        data = marshal.dumps(steps)
    except ValueError:  # it takes no subclasses, such as a name that is a member of an enum
        data = marshal.dumps([(are_steps, list(map(_plain, column))) for are_steps, column in steps])
    return zlib.compress(data, 1)


def _plain(value: Any) -> Any:
    """The value as what it is to a database."""
    for kind in (str, float, int):
        if isinstance(value, kind) and type(value) not in {kind, bool}:
            return "".join(value) if isinstance(value, str) else kind(value)
    return value


def _unpacked(packed: bytes) -> Iterator[VisitRow]:
    stored = marshal.loads(zlib.decompress(packed))  # noqa: S302 - made by `_packed` in this process
    columns = dict(zip(_NAMES, map(_sums, stored), strict=True))
    for name in ("started_at", "completed_at"):
        columns[name] = tuple(_EPOCH + each * _MICROSECOND for each in columns[name])
    columns["step_type"] = tuple(map(StepType, columns["step_type"]))
    columns["status"] = tuple(map(StepStatus, columns["status"]))
    return (VisitRow(*values) for values in zip(*columns.values(), strict=True))


def _steps(column: tuple[Any, ...]) -> tuple[bool, Sequence[Any]]:
    """A column of whole numbers as its first one and the differences; any other as it is."""
    if any(type(value) is not int for value in column):
        return False, column
    return True, [column[0], *(after - before for before, after in pairwise(column))]


def _sums(stored: tuple[bool, Sequence[Any]]) -> Sequence[Any]:
    are_steps, column = stored
    return tuple(accumulate(column)) if are_steps else column
