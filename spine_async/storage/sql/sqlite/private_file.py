"""Creates a database file that only its owner can read."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

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
