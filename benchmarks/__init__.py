"""Benchmarks: this library, the raw limits of the machine, and the peers, side by side. See docs/performance.md."""
