"""The protocol of measurements: what the engine reports as metrics."""

from __future__ import annotations

from typing import Protocol


class Measurements(Protocol):
    """Takes the measurements of one runner. Durations are in seconds.

    Implementations must not raise, and must be cheap, because some methods are called for each commit.
    """

    def run_ended(self, workflow: str, status: str, category: str | None, seconds: float) -> None:
        """A run was recorded as completed, failed or stopped, `seconds` after its first start."""
        ...

    def run_begun(self, workflow: str, queue: str, waited: float) -> None:
        """A worker has claimed a run of a queue for the first time, `waited` seconds after it was due."""
        ...

    def claimed(self, seconds: float) -> None:
        """A call that claims due runs was answered."""
        ...

    def committed(self, seconds: float, runs: int) -> None:
        """A commit was answered that contained changes of `runs` runs."""
        ...

    def lease_renewed(self, lag: float) -> None:
        """Leases were renewed, `lag` seconds later than planned."""
        ...

    def loop_lagged(self, lag: float) -> None:
        """A timer of the event loop was called `lag` seconds late."""
        ...


class NoMeasurements:
    """Takes no measurements."""

    def run_ended(self, workflow: str, status: str, category: str | None, seconds: float) -> None:
        pass

    def run_begun(self, workflow: str, queue: str, waited: float) -> None:
        pass

    def claimed(self, seconds: float) -> None:
        pass

    def committed(self, seconds: float, runs: int) -> None:
        pass

    def lease_renewed(self, lag: float) -> None:
        pass

    def loop_lagged(self, lag: float) -> None:
        pass
