"""The path of one step can be traced."""

from __future__ import annotations

from benchmarks import path


def test_each_step_is_committed_before_the_next_one_begins() -> None:
    for step in path.trace():
        functions = [call.function for call in step]
        assert functions.index("PendingWrites.drain") < functions.index("PendingWrites.committed")
        assert "SqliteDatabase.commit" in functions  # in the event loop
        assert "in_transaction" in functions  # in the thread of the connection
