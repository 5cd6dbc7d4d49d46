"""Which stored runs a listing or a count selects, and where a listing continues."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from spine_async._model.status import RunStatus

DOCUMENTS = ("params", "initial_outputs", "initial_quality", "metadata")
"""The fields of a stored run that a listing reads only on request."""

_FORM = struct.Struct(">Bqq")  # version, microseconds since 1970, key
_VERSION = 1
_CHECK_BYTES = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


@dataclass(frozen=True, slots=True)
class RunCursor:
    """The place of a run in a listing: runs are ordered by the time of their creation, then by the key of the store.

    Attributes:
        created_at: When the run was created.
        key: The store's own key of the run; a run that is created later has a greater key.
    """

    created_at: datetime
    key: int

    @classmethod
    def parse(cls, text: object) -> RunCursor:
        """The cursor with this text.

        Raises:
            ValueError: `text` is not the text of a cursor, for instance because a part of it is missing.
        """
        try:
            data = base64.b64decode(str(text), altchars=b"-_", validate=True)
            version, microseconds, key = _FORM.unpack(data[:-_CHECK_BYTES])
            created_at = _EPOCH + microseconds * _MICROSECOND
        except (ValueError, struct.error, OverflowError):
            raise _invalid_cursor() from None
        if version != _VERSION or data[-_CHECK_BYTES:] != _check(data[:-_CHECK_BYTES]):
            raise _invalid_cursor()
        return cls(created_at, key)

    def __str__(self) -> str:
        data = _FORM.pack(_VERSION, (self.created_at - _EPOCH) // _MICROSECOND, self.key)
        return base64.urlsafe_b64encode(data + _check(data)).decode()


def _check(data: bytes) -> bytes:
    """A checksum, so that a cursor of which a part is missing is no other cursor."""
    return binascii.crc_hqx(data, 0).to_bytes(_CHECK_BYTES)


def _invalid_cursor() -> ValueError:
    return ValueError("cursor is not valid; pass the unchanged `cursor` of a record that list_runs returned, or None")


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Selects stored runs. A field that is None does not filter. A time range includes its start, but not its end.

    Attributes:
        queue_key: Key within the queue.
        partition: Required entries of the partition: the JSON text of each value by name.
        parent_run_id: Only children of this run.
        owner: Only runs that this owner holds.
        created_from: Start of the time range in which the runs were created.
        created_until: End of that range.
        ended_from: Start of the time range in which the runs ended.
        ended_until: End of that range.
        run_id_prefix: Text with which the run ids begin.
        cursor: Continues a listing behind this place, whether or not the run of the cursor is still stored.
        limit: Maximum number of runs.
        is_oldest_first: Whether the oldest runs come first instead of the newest.
        with_documents: Whether the fields `DOCUMENTS` are read; else they are empty texts.
        is_under_way: True selects only runs that have not ended.
        is_ended: True selects only runs that have ended.
        is_leased: True selects runs with an unexpired lease, False those without.
        skips_unreadable: Whether a run with a value that cannot be read is logged and left out; else the call raises.
    """

    workflow_name: str | None = None
    status: RunStatus | None = None
    queue: str | None = None
    queue_key: str | None = None
    partition: Mapping[str, str] = field(default_factory=dict)
    parent_run_id: str | None = None
    owner: str | None = None
    stop_reason: str | None = None
    error_category: str | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None
    ended_from: datetime | None = None
    ended_until: datetime | None = None
    run_id_prefix: str | None = None
    cursor: RunCursor | None = None
    limit: int = 100
    is_oldest_first: bool = False
    with_documents: bool = True
    is_under_way: bool = False
    is_ended: bool = False
    is_leased: bool | None = None
    skips_unreadable: bool = False

    @property
    def statuses(self) -> list[RunStatus]:
        """The statuses that the selected runs can have."""
        is_ended = self.is_ended or self.ended_from is not None or self.ended_until is not None
        return [
            status
            for status in RunStatus
            if self.status in {None, status}
            and not (self.is_under_way and status.is_final)
            and not (is_ended and not status.is_final)
        ]


def end_of_prefix(prefix: str) -> str | None:
    """The first text, in the order of code points, behind all texts that begin with the prefix; None if there is none.

    In this order UTF-8 has the same order as its bytes, so a prefix is a range of an index.
    """
    kept = prefix.rstrip(chr(_LAST_CODE_POINT))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
