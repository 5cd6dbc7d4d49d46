"""The peers, through their documented APIs; each program runs in an environment of its own."""
