"""How a run begins to be executed: created, claimed, replayed."""
