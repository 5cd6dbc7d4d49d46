"""Renews the leases of active runs, and cancels runs whose lease is lost or whose stop was requested."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.scope import Run
from spine_async.errors import StoreError

_log = logging.getLogger("spine_async")


async def renew_leases(runtime: Runtime, runs: Sequence[Run]) -> None:
    """Renew the leases of these runs in one call of the store."""
    claims = [run.pending.claim for run in runs]
    try:
        renewals = await runtime.store.renew(claims, runtime.config.lease_ttl) if claims else []
    except StoreError as exc:
        _log.warning("leases could not be renewed, will be tried again: %s", exc)
        return
    now_mono = runtime.clock.monotonic()
    for run, renewal in zip(runs, renewals, strict=True):
        if run.pending.end is not None:
            continue
        if not renewal.is_held:
            run.cancellation.request(CancelReason.LEASE_LOST, now_mono)
        elif renewal.stop_reason is not None:
            run.cancellation.request(CancelReason.USER, now_mono, renewal.stop_reason)
