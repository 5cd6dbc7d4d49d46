"""How a run is seen from outside: spans, metrics, and the clock they are read from."""
