"""The log of a run: a file of JSON lines that only grows.

A line ends with a line feed and contains a checksum of itself. A process that dies while it writes leaves a line
without an end; such a torn line was never acknowledged, and the next writer removes it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

_CHECKSUM = b'{"crc":"'
_DIGITS = 8
_HEAD = len(_CHECKSUM) + _DIGITS + 2  # with the quotation mark and the comma
_NEVER_WRITTEN = b"\x00"


class Log:
    """An open log, as far as it was read. The caller holds the lock of the file.

    Args:
        descriptor: The file, opened for reading and appending.
        end: Size of the part that was read before.
    """

    def __init__(self, descriptor: int, end: int = 0) -> None:
        self._descriptor = descriptor
        self.end = end

    @property
    def is_longer(self) -> bool:
        """Whether the file has grown, or has shrunk, since it was read."""
        return os.fstat(self._descriptor).st_size != self.end

    def head(self, size: int) -> bytes:
        """The first bytes of the file, at most `size`."""
        return os.pread(self._descriptor, size, 0)

    def read(self) -> Iterator[dict[str, Any]]:
        """The lines that follow; without a torn line at the end.

        Raises:
            ValueError: A line that was written completely has been changed since.
        """
        data = _read_from(self._descriptor, self.end)
        start = 0
        while (feed := data.find(b"\n", start)) >= 0:
            line = data[start:feed]
            if _NEVER_WRITTEN in line:  # the blocks of a file may reach the disk in any order
                return
            yield _parsed(line)
            self.end += feed + 1 - start
            start = feed + 1

    def append(self, entry: Mapping[str, Any], *, is_synced: bool) -> None:
        """Write a line; a torn line that follows the part that was read is removed.

        Args:
            entry: Its content.
            is_synced: Whether to wait until the line is on the disk.

        Raises:
            OSError: The line was not written, or did not reach the disk; it is removed, if that is possible.
        """
        line = _line(entry)
        if os.fstat(self._descriptor).st_size != self.end:
            os.ftruncate(self._descriptor, self.end)
        try:
            _write(self._descriptor, line)
            if is_synced:
                os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.end)
            raise
        self.end += len(line)


def _line(entry: Mapping[str, Any]) -> bytes:
    body = json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode("ascii")[1:]
    return b'%s%08x",%s\n' % (_CHECKSUM, zlib.crc32(body), body)


def _parsed(line: bytes) -> dict[str, Any]:
    body = line[_HEAD:]
    if not line.startswith(_CHECKSUM) or zlib.crc32(body) != int(line[len(_CHECKSUM) : _HEAD - 2], 16):
        raise ValueError("a line of the log does not fit its checksum")
    entry = json.loads(b"{" + body)
    if not isinstance(entry, dict):
        raise TypeError("a line of the log is no object")
    return entry


def _read_from(descriptor: int, start: int) -> bytes:
    parts, at = list[bytes](), start
    while part := os.pread(descriptor, max(os.fstat(descriptor).st_size - at, 1), at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
