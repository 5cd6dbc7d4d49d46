"""Values the whole library speaks in: frozen, no I/O, no event loop."""
