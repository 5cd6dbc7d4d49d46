"""Values that all layers use: no I/O, no event loop."""
