"""Names of owners: a process counts as gone only where its host is identified."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from spine_async._engine.start import owner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux identifies its boot")

Files = dict[str, str]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[[Files], None]:
    """Replace what `/proc` says, as on another host."""

    def replace(files: Files) -> None:
        read_text, read_link = owner._text, owner._link
        monkeypatch.setattr(owner, "_text", lambda path: files.get(path, "") if path in files else read_text(path))
        monkeypatch.setattr(owner, "_link", lambda path: files[path] if path in files else read_link(path))

    return replace


BOOT, SPACE, SELF, TIME = "/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid", "/proc/self", "/proc/self/ns/time"


def ended_owner() -> str:
    """The name of a process that has ended."""
    code = "from spine_async._engine.start.owner import new_owner; print(new_owner())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_process_that_ended_on_this_host_is_gone() -> None:
    assert owner.is_gone(ended_owner())
    assert not owner.is_gone(owner.new_owner())


@pytest.mark.parametrize("files", [{BOOT: ""}, {SPACE: ""}, {SELF: "1"}, {SELF: ""}])
def test_nobody_is_gone_where_the_host_is_not_identified(host: Callable[[Files], None], files: Files) -> None:
    ended = ended_owner()
    host(files)
    assert not owner.is_gone(ended)
    name = owner.new_owner()
    assert name.startswith(f"{socket.gethostname()}-unidentified/{os.getpid()}/0/")
    assert not owner.is_gone(name.replace(f"/{os.getpid()}/", "/4194304/"))


@pytest.mark.parametrize("files", [{BOOT: "another"}, {SPACE: "pid:[1]"}, {TIME: "time:[1]"}])
def test_a_process_of_another_boot_or_namespace_is_not_gone(host: Callable[[Files], None], files: Files) -> None:
    ended = ended_owner()
    host(files)
    assert not owner.is_gone(ended)


def test_containers_without_boot_ids_that_share_a_host_name_do_not_match(host: Callable[[Files], None]) -> None:
    host({BOOT: ""})
    first = owner.new_owner().split("/")
    assert not owner.is_gone("/".join([first[0], "4194304", "0", first[3]]))


def test_a_process_id_that_was_used_again_does_not_hide_the_end() -> None:
    host, pid, started, token = owner.new_owner().split("/")
    assert owner.is_gone(f"{host}/{pid}/{int(started) + 1}/{token}")
    assert not owner.is_gone(f"{host}/{pid}/0/{token}")


@pytest.mark.parametrize("name", ["", "x", "a/b/c/d", "a/1/2", "a/1/2/3/4", "a/-1/2/x", "a/1/²/x"])
def test_names_of_other_forms_are_never_gone(name: str) -> None:
    assert not owner.is_gone(name)
    assert not owner.is_gone(name.replace("a/", f"{owner._host()}/", 1))


def test_a_process_with_only_its_main_thread_ended_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = ["Z", *["0"] * 16, "3", "0", "1234"]
    monkeypatch.setattr(owner, "_fields", lambda pid: fields)
    assert owner._is_running(1)
    fields[17] = "1"
    assert not owner._is_running(1)


@pytest.mark.parametrize("files", [{BOOT: ""}, {SPACE: ""}, {SELF: "1"}, {BOOT: "another"}, {TIME: "time:[1]"}])
def test_nobody_is_alive_where_the_host_is_not_identified(host: Callable[[Files], None], files: Files) -> None:
    code = "from spine_async._engine.start.owner import new_owner; print(new_owner(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert owner.is_alive(name)
        host(files)
        assert not owner.is_alive(name)
        assert not owner.is_gone(name)
        other.communicate("\n")
