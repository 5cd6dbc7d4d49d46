"""Programs that do one measured task each in a process of their own; those of peers run in the peers' environments."""
