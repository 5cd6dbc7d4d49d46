"""Programs that execute one measured task in a process; programs of peers run in the environments of the peers."""
