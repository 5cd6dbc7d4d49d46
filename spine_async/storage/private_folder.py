"""Makes folders that only their owner can read."""

from __future__ import annotations

from pathlib import Path

FOLDER_MODE = 0o700


def make_private_folder(folder: Path) -> None:
    """Make a folder with mode 0700, and those above it that do not exist; an existing folder keeps its mode.

    `Path.mkdir(parents=True)` would make those above it with the default mode.
    """
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_private_folder(folder.parent)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
