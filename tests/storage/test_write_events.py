"""Waiting for writes to a file and its log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spine_async.storage.sql.sqlite import write_events as module
from spine_async.storage.sql.sqlite.write_events import WriteEvents, write_events

LONG = 30.0
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    path.write_bytes(b"")
    return path


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host on which no inotify instance can be made."""

    def refuse() -> None:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(module, "_Inotify", refuse)


def meanwhile(call: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(0.02, call)
    timer.start()
    return timer


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def elapsed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


@on_linux
def test_a_write_to_the_file_ends_the_wait(file: Path) -> None:
    events = write_events(0.001)
    events.watch(file)
    timer = meanwhile(lambda: file.write_bytes(b"1"))
    assert events.wait(LONG)
    timer.join()


@on_linux
def test_a_write_before_the_wait_is_not_missed_and_is_reported_once(file: Path) -> None:
    events = write_events(0.001)
    events.watch(file)
    file.write_bytes(b"1")
    assert events.wait(LONG)
    assert not events.wait(0)


@on_linux
def test_a_log_that_is_created_later_is_watched_after_the_next_call(file: Path) -> None:
    events, log = write_events(0.001), Path(f"{file}-wal")
    events.watch(file)
    log.write_bytes(b"1")
    assert not events.wait(0)
    events.watch(file)
    log.write_bytes(b"2")
    assert events.wait(LONG)


@on_linux
def test_reading_is_not_reported(file: Path) -> None:
    events = write_events(0.001)
    events.watch(file)
    file.read_bytes()
    assert not events.wait(0)


@on_linux
def test_a_file_in_a_folder_that_is_gone_raises_no_error(tmp_path: Path) -> None:
    write_events(0.001).watch(tmp_path / "gone" / "runs.db")


@on_linux
def test_descriptors_are_closed(file: Path) -> None:
    before = open_descriptors()
    events = write_events(0.001)
    events.watch(file)
    assert open_descriptors() == before + 2
    del events
    assert open_descriptors() == before


def stop_ends_waits(events: WriteEvents) -> None:
    timer = meanwhile(events.stop)
    assert elapsed(lambda: events.pause(LONG)) < LONG / 2
    timer.join()
    assert events.pause(LONG)
    events.stop()
    assert elapsed(lambda: events.wait(LONG)) < LONG / 2


def test_stop_ends_this_pause_and_all_later_waits() -> None:
    stop_ends_waits(write_events(0.001))


@pytest.mark.usefixtures("pauses")
def test_without_events_of_the_kernel_stop_ends_waits_too() -> None:
    stop_ends_waits(write_events(0.001))


@pytest.mark.usefixtures("pauses")
def test_without_events_of_the_kernel_each_wait_is_short_and_may_have_missed_a_write(file: Path) -> None:
    events = write_events(0.001)
    events.watch(file)
    assert elapsed(lambda: events.wait(LONG)) < LONG / 2
    assert events.wait(0)
    assert not events.pause(0.001)
