"""Compressed storage for the visits of one run in memory.

Theory of operation: new rows are kept as objects. Every 512 rows are packed into a block: the rows are transposed into
columns, integers and timestamps are stored as differences to the previous row, and the result is marshalled and
compressed. Rows of map items are so similar that one takes about 25 bytes instead of 650. Packing costs about 4 µs per
row. Iteration unpacks one block at a time. The packed bytes never leave this process.
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

from spine_async._model.status import StepStatus, StepType
from spine_async._model.visit_filter import VisitFilter
from spine_async._model.visit_row import VisitRow

_BLOCK_SIZE = 512
"""Rows per packed block; most runs have fewer."""

_LAST = "\U0010ffff"  # no scope begins with it: it is not printable
_FIELDS = tuple(each.name for each in fields(VisitRow))
_TIMESTAMPS = ("started_at", "completed_at")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_values = attrgetter(*_FIELDS)
_seq = attrgetter("seq")


@dataclass(slots=True)
class _Block:
    """Packed rows, with the ranges of their numbers and scopes, so that a search skips blocks without unpacking them.

    Attributes:
        last_seq: The largest number.
        first_scope: The smallest scope in the order of characters; "" if a row is outside of map items.
        last_scope: The largest scope.
    """

    last_seq: int
    first_scope: str
    last_scope: str
    data: bytes


class PackedVisits:
    """Visits ordered by number."""

    def __init__(self, rows: Sequence[VisitRow] = ()) -> None:
        self._blocks: list[_Block] = []
        self._recent: list[VisitRow] = []
        self.extend(rows)

    def extend(self, rows: Sequence[VisitRow]) -> None:
        """Add rows in any order; all their numbers are greater than those of the rows added before."""
        self._recent.extend(sorted(rows, key=_seq))
        while len(self._recent) >= _BLOCK_SIZE:
            block = self._recent[:_BLOCK_SIZE]
            scopes = [row.scope for row in block]
            self._blocks.append(_Block(block[-1].seq, min(scopes), max(scopes), _pack(block)))
            del self._recent[:_BLOCK_SIZE]

    def __iter__(self) -> Iterator[VisitRow]:
        return self.ending_after(-1)

    def ending_after(self, seq: int) -> Iterator[VisitRow]:
        """The rows with a number greater than `seq`; blocks of smaller numbers are not unpacked."""
        blocks = (_unpack(block.data) for block in self._blocks if block.last_seq > seq)
        return (row for row in chain(chain.from_iterable(blocks), self._recent) if row.seq > seq)

    def candidates(self, chosen: VisitFilter) -> Iterator[VisitRow]:
        """Rows among which are all that the filter selects; blocks that have none of them are not unpacked."""
        start, end = _scope_range(chosen)
        blocks = (
            _unpack(block.data)
            for block in self._blocks
            if block.last_seq > chosen.after and block.last_scope >= start and block.first_scope < end
        )
        return chain(chain.from_iterable(blocks), self._recent)


def _scope_range(chosen: VisitFilter) -> tuple[str, str]:
    """The first scope that the filter may select, and the first one behind all of these."""
    if chosen.inside is not None:
        # The scope of a row inside is the path itself, or continues with `/` or `[`; `\\` is the character after `[`.
        return chosen.inside, f"{chosen.inside}\\"
    if chosen.scopes:
        return min(chosen.scopes), f"{max(chosen.scopes)}\x00"
    return "", _LAST


def _pack(rows: Iterable[VisitRow]) -> bytes:
    columns = dict(zip(_FIELDS, zip(*map(_values, rows), strict=True), strict=True))
    for name in _TIMESTAMPS:
        columns[name] = tuple((at - _EPOCH) // _MICROSECOND for at in columns[name])
    for name in ("step_type", "status"):
        columns[name] = tuple(member.value for member in columns[name])
    encoded = [_encode_column(column) for column in columns.values()]
    try:
        data = marshal.dumps(encoded)
    except ValueError:  # marshal accepts no subclasses, for example a step name that is an enum member
        data = marshal.dumps([(are_deltas, list(map(_builtin, column))) for are_deltas, column in encoded])
    return zlib.compress(data, 1)


def _builtin(value: Any) -> Any:
    """An instance of a subclass of str, float or int as an instance of the built-in type itself."""
    for kind in (str, float, int):
        if isinstance(value, kind) and type(value) not in {kind, bool}:
            return "".join(value) if isinstance(value, str) else kind(value)
    return value


def _unpack(data: bytes) -> Iterator[VisitRow]:
    encoded = marshal.loads(zlib.decompress(data))  # noqa: S302 - made by `_pack` in this process
    columns = dict(zip(_FIELDS, map(_decode_column, encoded), strict=True))
    for name in _TIMESTAMPS:
        columns[name] = tuple(_EPOCH + each * _MICROSECOND for each in columns[name])
    columns["step_type"] = tuple(map(StepType, columns["step_type"]))
    columns["status"] = tuple(map(StepStatus, columns["status"]))
    return (VisitRow(*values) for values in zip(*columns.values(), strict=True))


def _encode_column(column: tuple[Any, ...]) -> tuple[bool, Sequence[Any]]:
    """A column of integers as its first value and the differences; any other column unchanged."""
    if any(type(value) is not int for value in column):
        return False, column
    return True, [column[0], *(after - before for before, after in pairwise(column))]


def _decode_column(encoded: tuple[bool, Sequence[Any]]) -> Sequence[Any]:
    are_deltas, column = encoded
    return tuple(accumulate(column)) if are_deltas else column
