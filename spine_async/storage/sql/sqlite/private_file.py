"""Finds a database file, or creates one that only its owner can read."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path

from spine_async.storage.private_folder import make_private_folder

_OWNER_ONLY = 0o600


def create_private_file(file: Path) -> None:
    """Create an empty file with mode 0600, unless the file exists. SQLite gives the same mode to `-wal` and `-shm`.

    This function must not open the file at its path. Closing it would release the locks that another connection of this
    process may hold on the file. So the file is created under another name and then linked.
    """
    target = Path(os.path.realpath(file))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(descriptor)
    try:
        os.link(temporary, target)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        with suppress(FileExistsError):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))
    finally:
        Path(temporary).unlink()


def file_exists(file: Path) -> bool:
    """Whether the file exists; raises the error of a failed open."""
    if not file.exists():
        return False
    _probe(file)
    return True


def create_file(file: Path, makes_folder: bool, is_created: bool) -> None:  # noqa: FBT001 (`run_sync` passes positional arguments only)
    """Create the file and its folder where that is allowed; raises the error of a failed open."""
    if makes_folder:
        make_private_folder(file.parent)
    if is_created and not file.exists():
        create_private_file(file)
    _probe(file, is_created=is_created)


def _probe(file: Path, *, is_created: bool = True) -> None:
    """Open and close the file, and raise the error of a failed open. A missing file is created if `is_created` is True.

    aiosqlite does not join the thread of a connection that failed to open. That thread may find the event loop closed
    and print a traceback. So aiosqlite is never used with a file that cannot be opened.
    """
    if is_created or file.exists():
        sqlite3.connect(file).close()
    else:
        sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True).close()
