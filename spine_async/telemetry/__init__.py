"""How a run is seen from outside: spans and metrics."""
