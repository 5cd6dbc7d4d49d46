"""The peers, each by its documented API; every program runs in an environment of its own."""
