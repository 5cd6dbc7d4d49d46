"""Reads the boot clock from a coroutine."""

from __future__ import annotations

import anyio.to_thread

from spine_async.storage.boot_clock import BootTime, boot_time, is_boot_known


async def boot_now() -> BootTime:
    """The reading of the boot clock. The first one reads a file, on a thread."""
    return boot_time() if is_boot_known() else await anyio.to_thread.run_sync(boot_time)
