"""The state of runs in memory; no I/O."""
